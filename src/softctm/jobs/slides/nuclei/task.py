"""Nuclei on slides: what the job needs to know of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from softctm.inference.nuclei_image import nucleus_types, token_stride
from softctm.jobs.slides.nuclei.columns import nuclei_columns
from softctm.jobs.slides.nuclei.fields import NucleiFields
from softctm.jobs.slides.nuclei.merge import SlideNuclei
from softctm.jobs.slides.nuclei.plan import KIND, plan_nuclei, slide_lattice
from softctm.jobs.slides.nuclei.results import write_nuclei, write_results
from softctm.jobs.slides.nuclei.stored import StoredNuclei
from softctm.jobs.slides.plan import SlidePlan
from softctm.jobs.slides.state import SlideState
from softctm.jobs.slides.stretches import FieldKind
from softctm.jobs.slides.tasks import OVERVIEW_FILE, FinishedSlide
from softctm.postprocessing.field_lattice import FieldLattice
from softctm.progress import counted
from softctm.slides.region import Region
from softctm.slides.slide import Slide
from softctm.writers.label_image import LABEL_FILE
from softctm.writers.nuclei_files import ALL_NUCLEI_WRITERS, NUCLEI_WRITERS

if TYPE_CHECKING:
    from softctm.inference.image_detector import ImageDetector
    from softctm.model import Model


class NucleiSlides:
    """A `SlideTask`: nuclei with outlines and types, in fields of the model's size that overlap."""

    formats: Mapping[str, str] = {name: file for name, (file, _) in ALL_NUCLEI_WRITERS.items()}
    always = tuple(NUCLEI_WRITERS)
    other_files = (LABEL_FILE, OVERVIEW_FILE)
    passing = ()

    def __init__(self, model: Model) -> None:
        (stage,) = model.stages.values()
        self.mpp, self._size, self._types = stage.input.mpp, stage.input.size, nucleus_types(model)
        stride = FieldLattice.for_networks(self._size, self._size, self._size).stride
        self.field_mm2: Mapping[str, float] = {KIND: (stride * self.mpp / 1000) ** 2}
        self.columns = nuclei_columns([kind.name for kind in self._types[1:]])

    def key(self) -> dict[str, Any]:
        """See `SlideTask.key`."""
        return {
            "classes": [kind.name for kind in self._types],
            "size": self._size,
            "mpp": self.mpp,
        }

    def field_seconds(self, detector: ImageDetector) -> dict[str, float]:
        """See `SlideTask.field_seconds`."""
        image = np.random.default_rng(0).integers(0, 256, (self._size, self._size, 3), np.uint8)
        start = time.perf_counter()
        detector(image)
        return {KIND: time.perf_counter() - start}

    def plan(self, slide: Slide, mask: NDArray[np.bool_], region: Region | None) -> SlidePlan:
        """See `SlideTask.plan`."""
        return plan_nuclei(slide, mask, region, self._lattice(slide), self.mpp)

    def kinds(self, slide: Slide, detector: ImageDetector, state: SlideState) -> dict[str, FieldKind]:
        """See `SlideTask.kinds`."""
        stride = token_stride(detector.model) if state.has_embeddings else None
        return {KIND: NucleiFields(slide, detector, self._lattice(slide), self.mpp, stride)}

    def write(self, done: FinishedSlide, formats: Sequence[str]) -> None:
        """See `SlideTask.write`."""
        write_nuclei(done, self.nuclei(done), self._types, formats)

    def write_results(self, done: FinishedSlide, formats: Sequence[str]) -> dict[str, Any]:
        """See `SlideTask.write_results`."""
        return write_results(done, self.nuclei(done), self._types, self.mpp, formats)

    def words(self, records: Sequence[Mapping[str, Any]]) -> str:
        """See `SlideTask.words`."""
        return counted(sum(record["nuclei"] for record in records), "nucleus", "nuclei")

    def nuclei(self, done: FinishedSlide) -> SlideNuclei:
        """The nuclei of a slide whose stretches are all stored."""
        stored = StoredNuclei(done.state, done.plan.stages[KIND])
        return SlideNuclei(stored, self._lattice(done.slide), self.mpp, done.slide, done.region)

    def _lattice(self, slide: Slide) -> FieldLattice:
        return slide_lattice(slide, self._size, self.mpp)
