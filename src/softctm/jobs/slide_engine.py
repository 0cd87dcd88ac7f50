"""Who computes a slide's stretches: this process, or the workers of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from softctm.inference.detector_options import DetectorOptions
from softctm.jobs.slide_detector import FieldDetector
from softctm.jobs.slide_options import SlideOptions
from softctm.jobs.slide_plan import SlidePlan
from softctm.jobs.slide_state import SlideState
from softctm.jobs.slide_stretches import Seconds, StretchWork
from softctm.pair import PATCH_SIZE, WINDOW_SIZE
from softctm.slides.lattice import TissueLattice
from softctm.slides.slide import Slide

if TYPE_CHECKING:
    from softctm.model import Model

FieldDone = Callable[[str], None]


@dataclass(frozen=True)
class EngineFacts:
    """What is known of the networks and where they run.

    Attributes
    ----------
    device : "cpu" or "cuda"
    notice : str or None
        Why it is not what was wished.
    model : Model
    options : DetectorOptions
        As they were resolved: quality and precision as they are.
    tissue_seconds, cell_seconds : float
        For one field of each kind, measured on one.
    workers : int
        Processes that compute.
    """

    device: str
    notice: str | None
    model: Model
    options: DetectorOptions
    tissue_seconds: float
    cell_seconds: float
    workers: int = 1

    def seconds_for(self, plan: SlidePlan) -> float:
        """Expected time of a slide's fields."""
        fields = plan.tissue_fields * self.tissue_seconds + plan.cell_fields * self.cell_seconds
        return fields / self.workers


@dataclass(frozen=True)
class SlideWork:
    """What a worker has to know of a slide.

    Attributes
    ----------
    path : Path
    mpp : float or None
        As `open_slide` takes it.
    folder : Path
        Of its results.
    key : dict
        See `SlideState`.
    """

    path: Path
    mpp: float | None
    folder: Path
    key: dict[str, Any]


class Engine(Protocol):
    """Computes the stretches of slides."""

    @property
    def facts(self) -> EngineFacts:
        """What it computes with."""

    def run(self, work: SlideWork, slide: Slide, plan: SlidePlan, field_done: FieldDone) -> Seconds:
        """Compute and store all stretches of a plan that are not yet stored.

        Parameters
        ----------
        work : SlideWork
        slide : Slide
            Open, for whoever computes in this process.
        plan : SlidePlan
        field_done : callable
            Called with the kind for each field that is done, stored ones included.

        Returns
        -------
        dict
            Seconds by stage, of all workers together.
        """

    def close(self) -> None:
        """Let go of what it holds."""


class LocalEngine:
    """Computes in this process."""

    def __init__(self, detector: FieldDetector, options: DetectorOptions) -> None:
        self._detector = detector
        self.facts = measured_facts(detector, options)

    def run(self, work: SlideWork, slide: Slide, plan: SlidePlan, field_done: FieldDone) -> Seconds:
        """See `Engine.run`."""
        state = SlideState(work.folder, work.key)
        tell_of_stored(plan, state, field_done)
        stretch_work = StretchWork(slide, self._detector, state, TissueLattice.of(slide))
        stretch_work.run(plan.tissue, field_done)
        stretch_work.run(plan.cells, field_done)
        return stretch_work.seconds

    def close(self) -> None:
        """See `Engine.close`."""


def open_engine(options: SlideOptions) -> Engine:
    """The engine that the options ask for; Dask is imported only for `workers` and `scheduler`.

    Raises
    ------
    ModelError, DeviceError, UsageError
    """
    if options.workers is not None or options.scheduler is not None:
        from softctm.jobs.slide_cluster import ClusterEngine

        return ClusterEngine(options)
    chosen = options.for_this_machine()
    return LocalEngine(load_field_detector(chosen), chosen)


def load_field_detector(options: DetectorOptions) -> FieldDetector:
    """Load a model's detector, which must be one of cell points.

    Raises
    ------
    ModelError, DeviceError
    """
    from softctm.inference import load  # slow to import

    detector: FieldDetector = load.open_detector(options, "cell-points")
    return detector


def measured_facts(detector: FieldDetector, options: DetectorOptions) -> EngineFacts:
    """What is known of a detector; the time for a field of each kind is measured on noise."""
    image = np.random.default_rng(0).integers(0, 256, (PATCH_SIZE, PATCH_SIZE, 3), np.uint8)
    start = time.perf_counter()
    tissue_map = detector.tissue_map(image)
    middle = time.perf_counter()
    detector.find_cells(image, np.ascontiguousarray(tissue_map[:, :WINDOW_SIZE, :WINDOW_SIZE]))
    end = time.perf_counter()
    resolved = replace(options, precision=detector.model.precision)
    return EngineFacts(
        detector.device, detector.notice, detector.model, resolved, middle - start, end - middle
    )


def tell_of_stored(plan: SlidePlan, state: SlideState, field_done: FieldDone) -> None:
    """Count the fields that an earlier run left."""
    for stretch in (*plan.tissue, *plan.cells):
        if state.is_done(stretch):
            for _ in stretch.fields:
                field_done(stretch.kind)
