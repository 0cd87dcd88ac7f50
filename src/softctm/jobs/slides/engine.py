"""Who computes a slide's stretches: this process, or the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from softctm.inference.detector_options import DetectorOptions
from softctm.jobs.slides.plan import SlidePlan
from softctm.jobs.slides.state import SlideState
from softctm.jobs.slides.stretches import Seconds, StretchWork, TimedDetector
from softctm.jobs.slides.tasks import SLIDE_TASKS, SlideTask, slide_task
from softctm.ort.processors import available_processors
from softctm.slides.slide import Slide

if TYPE_CHECKING:
    from softctm.model import Model

FieldDone = Callable[[str], None]

_CALLERS = 2
"""Fields that are looked at side by side, where each of them would leave processors idle."""


@dataclass(frozen=True)
class EngineFacts:
    """What is known of the networks and where they run.

    Attributes
    ----------
    device : "cpu" or "cuda"
    notice : str or None
        Why it is not what was wished.
    model : Model
    views : int
        Of test-time augmentation.
    options : DetectorOptions
        As they were resolved: quality and precision as they are.
    field_seconds : mapping of str to float
        For one field of each kind, measured on one.
    workers : int
        Processes that compute.
    """

    device: str
    notice: str | None
    model: Model
    views: int
    options: DetectorOptions
    field_seconds: Mapping[str, float]
    workers: int = 1

    @property
    def task(self) -> SlideTask:
        """What is looked for."""
        return slide_task(self.model)

    @property
    def seconds_a_mm2(self) -> float:
        """Expected time for a mm² of a large area."""
        area = self.task.field_mm2
        return sum(seconds / area[kind] for kind, seconds in self.field_seconds.items()) / self.workers

    def seconds_for(self, plan: SlidePlan) -> float:
        """Expected time of a slide's fields."""
        counts = plan.field_counts
        return sum(counts[kind] * seconds for kind, seconds in self.field_seconds.items()) / self.workers


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


class SlideDetector(TimedDetector, Protocol):
    """What an engine says of a detector, of whatever task."""

    model: Model
    notice: str | None
    views: int

    @property
    def device(self) -> str:
        """Where the networks really run."""


class LocalEngine:
    """Computes in this process."""

    def __init__(self, detector: SlideDetector, options: DetectorOptions) -> None:
        self._detector = detector
        self.facts = measured_facts(detector, options)

    def run(self, work: SlideWork, slide: Slide, plan: SlidePlan, field_done: FieldDone) -> Seconds:
        """See `Engine.run`."""
        state = SlideState(work.folder, work.key)
        tell_of_stored(plan, state, field_done)
        stretch_work = begin_work(slide, self._detector, state)
        for stretches in plan.stages.values():
            stretch_work.run(stretches, field_done)
        return stretch_work.seconds

    def close(self) -> None:
        """See `Engine.close`."""


def load_slide_detector(options: DetectorOptions) -> SlideDetector:
    """Load a model's detector, of any task that looks at slides.

    Raises
    ------
    ModelError, DeviceError
    """
    from softctm.inference import load  # slow to import

    callers = min(_CALLERS, available_processors())
    detector: SlideDetector = load.open_detector(options, *SLIDE_TASKS, callers=callers)
    return detector


def begin_work(slide: Slide, detector: SlideDetector, state: SlideState) -> StretchWork:
    """Get ready to compute stretches of a slide."""
    kinds = slide_task(detector.model).kinds(slide, detector, state)
    return StretchWork(slide, detector, state, kinds)


def measured_facts(detector: SlideDetector, options: DetectorOptions) -> EngineFacts:
    """What is known of a detector; the time for a field of each kind is measured."""
    alone = slide_task(detector.model).field_seconds(detector)
    seconds = {kind: spent / detector.callers for kind, spent in alone.items()}
    resolved = replace(options, precision=detector.model.precision)
    return EngineFacts(detector.device, detector.notice, detector.model, detector.views, resolved, seconds)


def tell_of_stored(plan: SlidePlan, state: SlideState, field_done: FieldDone) -> None:
    """Count the fields that an earlier run left."""
    for stretch in plan.stretches:
        if state.is_done(stretch):
            for _ in stretch.fields:
                field_done(stretch.kind)
