"""Compute stretches of a slide: while one field is in the networks, a thread reads the next ones."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from softctm.errors import PairError, SlideError
from softctm.inference.stage_times import timed
from softctm.jobs.background import Background
from softctm.jobs.slide_plan import Stretch
from softctm.jobs.slide_state import SlideState
from softctm.slides.slide import Slide

_AHEAD = 2
"""Fields that are read ahead, 3 MB each."""

Seconds = dict[str, float]
FieldPlace = tuple[int, int]
"""Column and row of a field."""


class StretchFindings(Protocol):
    """What is found in a stretch, while its fields are computed."""

    def add(self, field: FieldPlace, image: NDArray[np.uint8]) -> None:
        """Compute a field; fields come in row-major order."""

    def content(self) -> bytes:
        """All of it as it is stored; called in another thread, after the last field."""


class FieldKind(Protocol):
    """One kind of field: how it is read, and what is looked for in it."""

    def read(self, field: FieldPlace) -> NDArray[np.uint8]:
        """The field's image, (H, W, 3); called in a thread beside the others."""

    def begin(self, stretch: Stretch) -> StretchFindings:
        """Get ready for a stretch; those that it needs are stored."""


class TimedDetector(Protocol):
    """What the computation of stretches itself wants of a detector."""

    @property
    def seconds_in_networks(self) -> float:
        """Time spent so far inside the networks."""


class StretchWork:
    """Computes stretches of one slide and stores them.

    Parameters
    ----------
    slide : Slide
    detector : TimedDetector
    state : SlideState
    kinds : mapping of str to FieldKind
        By the kind of stretch.

    Attributes
    ----------
    seconds : dict
        Time spent in `read` (beside the rest, in a thread), in `wait_for_input`, in the kinds by name (the
        detector), and of these in `networks`.
    """

    def __init__(
        self, slide: Slide, detector: TimedDetector, state: SlideState, kinds: Mapping[str, FieldKind]
    ) -> None:
        self._slide, self._detector, self._state, self._kinds = slide, detector, state, kinds
        self.seconds: Seconds = dict.fromkeys(("read", "wait_for_input", *kinds, "networks", "write"), 0.0)

    def run(
        self, stretches: Sequence[Stretch], field_done: Callable[[str], None] = lambda kind: None
    ) -> None:
        """Compute stretches of one kind in order, those that are stored already excepted.

        Parameters
        ----------
        stretches : sequence of Stretch
        field_done : callable
            Called with the kind after each field.

        Raises
        ------
        SlideError
            If the slide cannot be read, or a network gives NaN.
        OutputError
            If the state cannot be written.
        """
        open_ones = [stretch for stretch in stretches if not self._state.is_done(stretch)]
        before = self._detector.seconds_in_networks
        fields = [(stretch.kind, field) for stretch in open_ones for field in stretch.fields]
        with (
            contextlib.closing(self._read_ahead(fields)) as images,
            Background("write") as writing,
        ):
            for stretch in open_ones:
                findings = self._kinds[stretch.kind].begin(stretch)
                for field in stretch.fields:
                    image = self._next(images)
                    with timed(self.seconds, stretch.kind), self._named(field):
                        findings.add(field, image)
                    field_done(stretch.kind)
                writing.begin(self._write, stretch, findings)
        self.seconds["networks"] += self._detector.seconds_in_networks - before

    def _read_ahead(
        self, fields: Iterable[tuple[str, FieldPlace]]
    ) -> Generator[NDArray[np.uint8], None, None]:
        """The fields' images in order, a few of them read in a thread before they are asked for."""
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read")
        waiting: deque[Future[NDArray[np.uint8]]] = deque()
        try:
            for kind, field in fields:
                waiting.append(executor.submit(self._read, kind, field))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    @contextlib.contextmanager
    def _named(self, field: FieldPlace) -> Generator[None, None, None]:
        """Let an error of the networks say on which slide and where."""
        try:
            yield
        except PairError as error:
            raise SlideError(f"{self._slide.path}: field {field[0]}, {field[1]}: {error}") from error

    def _next(self, images: Generator[NDArray[np.uint8], None, None]) -> NDArray[np.uint8]:
        with timed(self.seconds, "wait_for_input"):
            return next(images)

    def _read(self, kind: str, field: FieldPlace) -> NDArray[np.uint8]:
        with timed(self.seconds, "read"):
            return self._kinds[kind].read(field)

    def _write(self, stretch: Stretch, findings: StretchFindings) -> None:
        with timed(self.seconds, "write"):
            self._state.write(stretch, findings.content())
