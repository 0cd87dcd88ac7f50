"""Compute stretches of a slide: fields are read ahead by some threads and looked at by others, in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softctm.errors import PairError, SlideError
from softctm.inference.parallel import in_order
from softctm.inference.stage_times import add_seconds, timed
from softctm.jobs.background import Background
from softctm.jobs.slides.plan import Stretch
from softctm.jobs.slides.state import SlideState
from softctm.ort.processors import available_processors
from softctm.slides.slide import Slide

_MOST_READERS = 8
"""Threads that read; beyond, even a GPU gets its fields in time."""

Seconds = dict[str, float]
FieldPlace = tuple[int, int]
"""Column and row of a field."""


class StretchFindings(Protocol):
    """What is found in a stretch, while its fields are computed."""

    def look(self, field: FieldPlace, image: NDArray[np.uint8]) -> Any:
        """What is found in a field; called from as many threads at once as the detector allows."""

    def add(self, field: FieldPlace, found: Any) -> None:
        """Take what was found in a field; fields come in row-major order."""

    def content(self) -> bytes:
        """All of it as it is stored; called in another thread, after the last field."""


class FieldKind(Protocol):
    """One kind of field: how it is read, and what is looked for in it."""

    def read(self, field: FieldPlace) -> NDArray[np.uint8]:
        """The field's image, (H, W, 3); called from several threads at once."""

    def begin(self, stretch: Stretch) -> StretchFindings:
        """Get ready for a stretch; those that it needs are stored."""


@dataclass(frozen=True)
class _Field:
    """One field on its way."""

    stretch: Stretch
    findings: StretchFindings
    place: FieldPlace
    image: NDArray[np.uint8]


class TimedDetector(Protocol):
    """What the computation of stretches itself wants of a detector."""

    @property
    def callers(self) -> int:
        """From how many threads at once it may be called."""

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
        Time spent in `read` and `write` (in threads beside the rest), in the kinds by name (the detector),
        and of these in `networks`; a mean over the threads that look at fields.
    """

    def __init__(
        self, slide: Slide, detector: TimedDetector, state: SlideState, kinds: Mapping[str, FieldKind]
    ) -> None:
        self._slide, self._detector, self._state, self._kinds = slide, detector, state, kinds
        self._readers = min(_MOST_READERS, max(1, available_processors() // 2))
        self.seconds: Seconds = dict.fromkeys(("read", *kinds, "networks", "write"), 0.0)

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
        before, callers = self._detector.seconds_in_networks, self._detector.callers
        looked_at: Seconds = {}
        places = ((stretch.kind, place) for stretch in open_ones for place in stretch.fields)
        with (
            closing(in_order(places, self._read, self._readers, "read")) as images,
            closing(
                in_order(
                    self._fields(open_ones, images),
                    lambda field: self._look(field, looked_at),
                    callers,
                    "look",
                )
            ) as found_in_fields,
            Background("write") as writing,
        ):
            for field, found in found_in_fields:
                field.findings.add(field.place, found)
                field_done(field.stretch.kind)
                if field.place == field.stretch.fields[-1]:
                    writing.begin(self._write, field.stretch, field.findings)
        looked_at["networks"] = self._detector.seconds_in_networks - before
        for stage, spent in looked_at.items():
            add_seconds(self.seconds, stage, spent / callers)

    def _fields(
        self, stretches: Sequence[Stretch], images: Generator[NDArray[np.uint8], None, None]
    ) -> Iterator[_Field]:
        """The fields in order, each with its image."""
        for stretch in stretches:
            findings = self._kinds[stretch.kind].begin(stretch)
            for place in stretch.fields:
                yield _Field(stretch, findings, place, next(images))

    def _look(self, field: _Field, seconds: Seconds) -> tuple[_Field, Any]:
        """A field and what is found in it; an error of the networks says on which slide and where."""
        try:
            with timed(seconds, field.stretch.kind):
                return field, field.findings.look(field.place, field.image)
        except PairError as error:
            column, row = field.place
            raise SlideError(f"{self._slide.path}: field {column}, {row}: {error}") from error

    def _read(self, field: tuple[str, FieldPlace]) -> NDArray[np.uint8]:
        kind, place = field
        with timed(self.seconds, "read"):
            return self._kinds[kind].read(place)

    def _write(self, stretch: Stretch, findings: StretchFindings) -> None:
        with timed(self.seconds, "write"):
            self._state.write(stretch, findings.content())
