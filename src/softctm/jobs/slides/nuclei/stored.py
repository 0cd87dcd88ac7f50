"""The nuclei of a stretch as they are stored, field by field, and read again."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.jobs.slides.plan import Stretch
from softctm.jobs.slides.state import SlideState
from softctm.jobs.slides.stretches import FieldPlace
from softctm.nuclei_table import NucleiTable
from softctm.postprocessing.measured_nuclei import MeasuredNuclei
from softctm.postprocessing.nuclei_features import NucleiFeatures
from softctm.postprocessing.outlines import Outlines

_MAPS = 8
"""Maps that are kept: 2 MB each. A field's own and those around it, to the left and above."""
_FILES = 4
"""Files that are kept open: their lists of contents take longer to read than a field."""


@dataclass(frozen=True, eq=False)
class StoredField:
    """What one field shows.

    Attributes
    ----------
    rows : (H, W) unsigned integer
        0 background, else a nucleus' row in the table, from 1.
    nuclei : MeasuredNuclei
        In the field's own pixels; ids are 1 … N.
    """

    rows: NDArray[np.unsignedinteger]
    nuclei: MeasuredNuclei


def packed(found: Sequence[StoredField]) -> bytes:
    """The fields of a stretch, in its order, as a compressed .npz file."""
    arrays: dict[str, NDArray[Any]] = {}
    for index, field in enumerate(found):
        outlines = field.nuclei.outlines
        arrays |= {
            _name(index, "rows"): field.rows,
            _name(index, "start"): outlines.start,
            # Corners lie at halves.
            _name(index, "corners"): np.rint(2 * outlines.corners).astype(np.int16),
        }
        for part in (field.nuclei.table, field.nuclei.features):
            arrays |= {_name(index, name): column for name, column in vars(part).items()}
        if field.nuclei.embeddings is not None:
            arrays[_name(index, "embeddings")] = field.nuclei.embeddings
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


class StoredNuclei:
    """The stored fields of a slide.

    Parameters
    ----------
    state : SlideState
    stretches : sequence of Stretch
        All stored.

    Attributes
    ----------
    places : list of (int, int)
        Column and row of the fields, in row-major order of the whole slide.
    """

    def __init__(self, state: SlideState, stretches: Sequence[Stretch]) -> None:
        self._state = state
        self._where = {
            field: (stretch.name, index)
            for stretch in stretches
            for index, field in enumerate(stretch.fields)
        }
        self.places: list[FieldPlace] = sorted(self._where, key=lambda field: field[::-1])
        self._maps: OrderedDict[FieldPlace, NDArray[np.unsignedinteger]] = OrderedDict()
        self._open: OrderedDict[str, Any] = OrderedDict()

    def __contains__(self, place: FieldPlace) -> bool:
        """Whether a field was looked at."""
        return place in self._where

    def rows(self, place: FieldPlace) -> NDArray[np.unsignedinteger]:
        """See `StoredField.rows`."""
        if place not in self._maps:
            (self._maps[place],) = self._load(place, ("rows",))
            if len(self._maps) > _MAPS:
                self._maps.popitem(last=False)
        self._maps.move_to_end(place)
        return self._maps[place]

    def table(self, place: FieldPlace) -> NucleiTable:
        """The table of a field's nuclei."""
        return NucleiTable(*self._load(place, _TABLE))

    def nuclei(self, place: FieldPlace) -> MeasuredNuclei:
        """See `StoredField.nuclei`."""
        table = self.table(place)
        start, corners = self._load(place, ("start", "corners"))
        features = NucleiFeatures(*self._load(place, _FEATURES))
        vectors = self._load(place, ("embeddings",))[0] if self._state.has_embeddings else None
        return MeasuredNuclei(table, Outlines(table.id, start, corners / 2), features, vectors)

    def _load(self, place: FieldPlace, names: Sequence[str]) -> list[NDArray[Any]]:
        stretch, index = self._where[place]

        def load(path: Path) -> list[NDArray[Any]]:
            if stretch not in self._open:
                self._open[stretch] = np.load(path)
                if len(self._open) > _FILES:
                    self._open.popitem(last=False)[1].close()
            self._open.move_to_end(stretch)
            return [self._open[stretch][_name(index, part)] for part in names]

        return self._state.read(stretch, load)


_TABLE = tuple(declared.name for declared in fields(NucleiTable))
_FEATURES = tuple(declared.name for declared in fields(NucleiFeatures))


def _name(index: int, part: str) -> str:
    return f"{index}.{part}"
