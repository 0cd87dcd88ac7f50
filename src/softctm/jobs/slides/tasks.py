"""What can be looked for on slides: a table by the model's task.

The job on a slide (plan, stretches, state, workers, cohort) is the same for all; a task says how a slide is
cut for its networks, what is found in a field, and what is written of it. A new one is a folder beside those
of the others and a line here; nothing else in the job asks for a task's name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softctm.errors import UsageError
from softctm.jobs.slides.plan import SlidePlan
from softctm.jobs.slides.state import SlideState
from softctm.jobs.slides.stretches import FieldKind
from softctm.slides.mask import Overview
from softctm.slides.region import Region
from softctm.slides.slide import Slide
from softctm.writers.embedding_files import need_embeddings
from softctm.writers.label_image import LABEL_FILE
from softctm.writers.slide_formats import require_libraries

if TYPE_CHECKING:
    from softctm.model import Model
    from softctm.writers.cohort_table import CohortColumns

OVERVIEW_FILE = "overview.png"


@dataclass(frozen=True, eq=False)
class FinishedSlide:
    """A slide whose stretches are all stored.

    Attributes
    ----------
    slide, state, plan
    overview : Overview
    mask : (H, W) bool
    region : Region or None
    """

    slide: Slide
    state: SlideState
    plan: SlidePlan
    overview: Overview
    mask: NDArray[np.bool_]
    region: Region | None


class SlideTask(Protocol):
    """What is looked for, by one model.

    Attributes
    ----------
    mpp : float
        Finest µm per pixel at which the networks look.
    formats : mapping of str to str
        What the findings can be written as: name, as in `--also`, and file.
    always : tuple of str
        Those of them that every slide has.
    other_files : tuple of str
        What every slide has beside them, `slide.json` excepted.
    passing : tuple of str
        Kinds of stretches that are no longer needed once the results are written.
    field_mm2 : mapping of str to float
        What a field adds to a large area, by kind.
    columns : CohortColumns
    """

    mpp: float
    formats: Mapping[str, str]
    always: tuple[str, ...]
    other_files: tuple[str, ...]
    passing: tuple[str, ...]
    field_mm2: Mapping[str, float]
    columns: CohortColumns

    def key(self) -> dict[str, Any]:
        """What a result depends on, of the model, beside its files."""

    def field_seconds(self, detector: Any) -> dict[str, float]:
        """Time for a field of each kind, measured on noise."""

    def plan(self, slide: Slide, mask: NDArray[np.bool_], region: Region | None) -> SlidePlan:
        """The fields of a slide; `mask` (H, W) says where tissue is, unless there is a region."""

    def kinds(self, slide: Slide, detector: Any, state: SlideState) -> dict[str, FieldKind]:
        """How stretches are computed, by kind, for a state; its key may ask for embeddings."""

    def write(self, done: FinishedSlide, formats: Sequence[str]) -> None:
        """Write what was found in several formats.

        Raises
        ------
        OutputError
            If a file cannot be written.
        MissingPackageError
            If a format's library is not installed.
        """

    def write_results(self, done: FinishedSlide, formats: Sequence[str]) -> dict[str, Any]:
        """`write`, and the other files; gives the slide's numbers, as `slide.json` holds them."""

    def words(self, records: Sequence[Mapping[str, Any]]) -> str:
        """What was found on slides, in a few words."""


@dataclass(frozen=True)
class _Entry:
    """One task.

    Attributes
    ----------
    maker : str
        "module:class", imported only when it is asked for; makes a `SlideTask` of a model.
    results : tuple of str
        Names of what it may write, `overview.png` and `slide.json` excepted.
    """

    maker: str
    results: tuple[str, ...]


_CELL_FILES = (*(f"cells.{end}" for end in ("geojson", "csv", "geojson.gz", "parquet", "h5ad")), "tissue.tif")
_NUCLEI_FILES = (
    *(f"nuclei.{end}" for end in ("geojson", "csv", "geojson.gz")),
    *(f"embeddings.{end}" for end in ("parquet", "h5ad")),
    LABEL_FILE,
)

SLIDE_TASKS: dict[str, _Entry] = {
    "cell-points": _Entry("softctm.jobs.slides.cells.task:CellSlides", _CELL_FILES),
    "nuclei": _Entry("softctm.jobs.slides.nuclei.task:NucleiSlides", _NUCLEI_FILES),
}
"""Name in `model.json` → what is done on slides."""

RESULT_FILES = (OVERVIEW_FILE, *(name for entry in SLIDE_TASKS.values() for name in entry.results))
"""Of all tasks: what a run that overwrites removes, and what another one refuses to replace."""


def slide_task(model: Model) -> SlideTask:
    """What is looked for on slides with a model."""
    module, _, name = SLIDE_TASKS[model.manifest.task].maker.partition(":")
    task: SlideTask = getattr(importlib.import_module(module), name)(model)
    return task


def check_formats(task: SlideTask, model: Model, also: Sequence[str]) -> None:
    """Make sure that further files can be written.

    Raises
    ------
    UsageError
        If one cannot; it names those that can.
    ModelError
        If the model gives nothing to make embeddings of.
    MissingPackageError
        If a library is not installed.
    """
    further = [name for name in task.formats if name not in task.always]
    for name in also:
        if name not in further:
            raise UsageError(
                f"--also {name}: is not written for models of the task {model.manifest.task}; there is "
                f"{', '.join(further)}"
            )
    if need_embeddings(also):
        from softctm.inference.nuclei_image import token_stride  # slow to import

        token_stride(model)
    require_libraries(also)
