"""Cells on slides: what the job needs to know of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from softctm.jobs.slides.cells.columns import CELL_COLUMNS
from softctm.jobs.slides.cells.detector import FieldDetector, peak_distance
from softctm.jobs.slides.cells.fields import CellFields, TissueFields
from softctm.jobs.slides.cells.plan import plan_cells
from softctm.jobs.slides.cells.results import TISSUE_FILE, write_cells, write_results
from softctm.jobs.slides.cells.tissue_map import TissueMap
from softctm.jobs.slides.plan import SlidePlan
from softctm.jobs.slides.state import SlideState
from softctm.jobs.slides.stretches import FieldKind
from softctm.jobs.slides.tasks import OVERVIEW_FILE, FinishedSlide
from softctm.pair import CELL_MPP, PATCH_SIZE, WINDOW_SIZE
from softctm.progress import counted
from softctm.slides.lattice import CELL_FIELD_MM2, TISSUE_FIELD_MM2, TissueLattice
from softctm.slides.region import Region
from softctm.slides.slide import Slide
from softctm.writers.slide_formats import ALWAYS, FORMATS

if TYPE_CHECKING:
    from softctm.model import Model


class CellSlides:
    """A `SlideTask`: tissue at 0.8 µm, then cells at 0.2 µm."""

    mpp = CELL_MPP
    formats: Mapping[str, str] = {name: file for name, (file, _) in FORMATS.items()}
    always = ALWAYS
    other_files = (TISSUE_FILE, OVERVIEW_FILE)
    passing = ("tissue",)
    field_mm2: Mapping[str, float] = {"tissue": TISSUE_FIELD_MM2, "cells": CELL_FIELD_MM2}
    columns = CELL_COLUMNS

    def __init__(self, model: Model) -> None:
        self._model, self._distance = model, peak_distance(model)

    def key(self) -> dict[str, Any]:
        """See `SlideTask.key`."""
        return {"classes": list(self._model.tissue.head.classes)}

    def field_seconds(self, detector: FieldDetector) -> dict[str, float]:
        """See `SlideTask.field_seconds`."""
        image = np.random.default_rng(0).integers(0, 256, (PATCH_SIZE, PATCH_SIZE, 3), np.uint8)
        start = time.perf_counter()
        tissue_map = detector.tissue_map(image)
        middle = time.perf_counter()
        detector.find_cells(image, np.ascontiguousarray(tissue_map[:, :WINDOW_SIZE, :WINDOW_SIZE]))
        return {"tissue": middle - start, "cells": time.perf_counter() - middle}

    def plan(self, slide: Slide, mask: NDArray[np.bool_], region: Region | None) -> SlidePlan:
        """See `SlideTask.plan`."""
        return plan_cells(slide, mask, region, self._distance)

    def kinds(self, slide: Slide, detector: FieldDetector, state: SlideState) -> dict[str, FieldKind]:
        """See `SlideTask.kinds`."""
        tissue_map = TissueMap(state, TissueLattice.of(slide))
        return {
            "tissue": TissueFields(slide, detector),
            "cells": CellFields(slide, detector, tissue_map),
        }

    def write(self, done: FinishedSlide, formats: Sequence[str]) -> None:
        """See `SlideTask.write`."""
        write_cells(done, self._distance, formats)

    def write_results(self, done: FinishedSlide, formats: Sequence[str]) -> dict[str, Any]:
        """See `SlideTask.write_results`."""
        return write_results(done, self._model, formats)

    def words(self, records: Sequence[Mapping[str, Any]]) -> str:
        """See `SlideTask.words`."""
        background, tumor = (
            sum(record[name] for record in records) for name in ("background_cells", "tumor_cells")
        )
        return f"{counted(background, 'background cell')}, {counted(tumor, 'tumor cell')}"
