"""From the state of a slide whose cells are found to its files."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from softctm.box import Box
from softctm.jobs.slides.cells.detector import cancer_class, peak_distance
from softctm.jobs.slides.cells.merge import slide_cells
from softctm.jobs.slides.cells.statistics import SlideStatistics, cancer_share
from softctm.jobs.slides.cells.tissue_map import TissueMap, empty_map
from softctm.jobs.slides.overview import overview_content, rounded
from softctm.jobs.slides.plan import looked_at, of_covered
from softctm.jobs.slides.tasks import OVERVIEW_FILE, FinishedSlide
from softctm.pair import TISSUE_MPP
from softctm.slides.lattice import TissueLattice
from softctm.slides.mask import covered_mm2
from softctm.storage.files import write_bytes_atomically
from softctm.writers.slide_formats import FORMATS
from softctm.writers.slide_overview import OverviewContent, Panel, draw_overview
from softctm.writers.tissue_pyramid import write_tissue_pyramid

if TYPE_CHECKING:
    from softctm.model import Model

TISSUE_FILE = "tissue.tif"

_PANELS = (
    Panel(
        "Background cells",
        ((255, 255, 255), (255, 237, 160), (254, 178, 76), (189, 100, 0), (102, 37, 6)),
    ),
    Panel(
        "Tumor cells",
        ((255, 255, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107)),
    ),
)
"""Yellow to brown and blue, as the classes' colors."""


def write_cells(
    done: FinishedSlide, distance: int, formats: Sequence[str], statistics: SlideStatistics | None = None
) -> None:
    """Write the cells in several formats in one pass, and count them.

    Parameters
    ----------
    done : FinishedSlide
    distance : int
        Of the peak rule, pixels of 0.2 µm.
    formats : sequence of str
        Of `FORMATS`.
    statistics : SlideStatistics, optional
        What counts them.

    Raises
    ------
    OutputError
        If a file cannot be written.
    MissingPackageError
        If a format's library is not installed.
    """
    with contextlib.ExitStack() as stack:
        adds = [
            stack.enter_context(FORMATS[name][1](done.state.folder / FORMATS[name][0])) for name in formats
        ]
        if statistics is not None:
            adds.append(statistics.add)
        stretches = done.plan.stages["cells"]
        for _, cells in slide_cells(done.state, stretches, done.slide, done.region, distance):
            for add in adds:
                add(cells)


def write_results(done: FinishedSlide, model: Model, formats: Sequence[str]) -> dict[str, Any]:
    """Write the cells, the tissue map and the overview.

    Returns
    -------
    dict
        The slide's numbers; see `SlideStatistics.document`.

    Raises
    ------
    OutputError
        If a file cannot be written.
    MissingPackageError
        If a format's library is not installed.
    """
    lattice = TissueLattice.of(done.slide)
    tissue_map = TissueMap(done.state, lattice)
    slide, mask = done.slide, done.mask
    cancer = of_covered(cancer_share(tissue_map, cancer_class(model), mask.shape), slide)
    seen = looked_at(done.plan, done.region, slide)
    statistics = SlideStatistics(mask, seen, cancer, covered_mm2(slide))
    write_cells(done, peak_distance(model), formats, statistics)
    names = model.tissue.head.classes

    def read_map(x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        found = tissue_map.window(Box(x, y, x + width, y + height))
        return empty_map(len(names), height, width) if found is None else found

    write_tissue_pyramid(
        done.state.folder / TISSUE_FILE, read_map, lattice.width, lattice.height, names, TISSUE_MPP
    )
    numbers = statistics.document()
    write_bytes_atomically(
        done.state.folder / OVERVIEW_FILE, draw_overview(_overview(done, statistics, numbers))
    )
    return numbers


def _overview(done: FinishedSlide, statistics: SlideStatistics, numbers: dict[str, Any]) -> OverviewContent:
    inside = numbers["cancer_area"]
    return overview_content(
        done,
        statistics.looked_at,
        _PANELS,
        statistics.density,
        (
            ("tumor cells", f"{numbers['tumor_cells']:,}"),
            ("background cells", f"{numbers['background_cells']:,}"),
            ("tumor purity", _percent(numbers["tumor_purity"])),
            ("tissue", f"{numbers['tissue_mm2']:.2f} mm²"),
            ("cancer area", f"{inside['mm2']:.2f} mm²"),
            ("purity in cancer area", _percent(inside["tumor_purity"])),
            ("tumor cells per mm² of cancer", rounded(inside["tumor_cells_per_mm2"])),
            ("background cells per mm² of cancer", rounded(inside["background_cells_per_mm2"])),
        ),
        statistics.cancer * (statistics.looked_at > 0),
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
