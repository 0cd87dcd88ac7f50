"""From the state of a slide whose nuclei are found to its files."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from softctm.jobs.slides.nuclei.merge import SlideNuclei
from softctm.jobs.slides.nuclei.statistics import NucleiStatistics
from softctm.jobs.slides.overview import overview_content, rounded
from softctm.jobs.slides.plan import looked_at
from softctm.jobs.slides.tasks import OVERVIEW_FILE, FinishedSlide
from softctm.nuclei_table import NucleusType
from softctm.slides.mask import covered_mm2
from softctm.storage.files import write_bytes_atomically
from softctm.writers.label_image import LABEL_FILE, write_label_pyramid
from softctm.writers.nuclei_files import ALL_NUCLEI_WRITERS
from softctm.writers.slide_overview import Panel, draw_overview

_PANELS = 5
"""Types whose density is shown, beside that of all nuclei."""
_ALL = Panel.of_color("Nuclei", (110, 60, 150))


def write_nuclei(
    done: FinishedSlide,
    nuclei: SlideNuclei,
    types: Sequence[NucleusType],
    formats: Sequence[str],
    statistics: NucleiStatistics | None = None,
) -> None:
    """Write the nuclei in several formats in one pass, and count them.

    Parameters
    ----------
    done : FinishedSlide
    nuclei : SlideNuclei
    types : sequence of NucleusType
        By number, background first.
    formats : sequence of str
        Of `ALL_NUCLEI_WRITERS`.
    statistics : NucleiStatistics, optional
        What counts them.

    Raises
    ------
    OutputError
        If a file cannot be written.
    MissingPackageError
        If a format's library is not installed.
    SlideError
        If the slide cannot be read where nuclei are measured again.
    """
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(kind(done.state.folder / name, types))
            for name, kind in (ALL_NUCLEI_WRITERS[each] for each in formats)
        ]
        for _, batch in nuclei:
            for file in files:
                file.add(batch, scale=nuclei.scale)
            if statistics is not None:
                statistics.add(batch)


def write_results(
    done: FinishedSlide,
    nuclei: SlideNuclei,
    types: Sequence[NucleusType],
    mpp: float,
    formats: Sequence[str],
) -> dict[str, Any]:
    """Write the nuclei, the label image and the overview; parameters and errors as `write_nuclei`.

    Returns
    -------
    dict
        The slide's numbers; see `NucleiStatistics.document`.
    """
    folder = done.state.folder
    seen = looked_at(done.plan, done.region, done.slide)
    statistics = NucleiStatistics(done.mask, seen, covered_mm2(done.slide), types, mpp)
    write_nuclei(done, nuclei, types, formats, statistics)
    write_label_pyramid(folder / LABEL_FILE, nuclei.label_window, *done.slide.size_at(mpp), mpp=mpp)
    numbers = statistics.document()
    shown = statistics.by_count[:_PANELS]
    words = ("without type", *(kind.name.replace("_", " ") for kind in types[1:]))
    density = statistics.density
    content = overview_content(
        done,
        statistics.looked_at,
        [_ALL, *(Panel.of_color(words[kind].capitalize(), types[kind].color) for kind in shown)],
        np.stack([density.sum(axis=0), *density[shown]]),
        (
            ("nuclei", f"{numbers['nuclei']:,}"),
            ("tissue", f"{numbers['tissue_mm2']:.2f} mm²"),
            ("nuclei per mm²", rounded(numbers["nuclei_per_mm2"])),
            *((words[kind], _count(numbers, types[kind].name)) for kind in shown),
        ),
    )
    write_bytes_atomically(folder / OVERVIEW_FILE, draw_overview(content))
    return numbers


def _count(numbers: dict[str, Any], name: str) -> str:
    of_type = numbers["types"][name]
    return f"{of_type['nuclei']:,} ({100 * of_type['share']:.0f} %)"
