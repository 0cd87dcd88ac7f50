"""Fields of view that overlap, in a lattice that begins at the origin of a large image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.box import Box

FIELD_SIZE = 1024
FIELD_OVERLAP = 64
"""Pixels that neighboring fields share."""


@dataclass(frozen=True)
class Field:
    """What is segmented at once.

    Attributes
    ----------
    box : Box
        What the field shows of the image.
    core : Box
        Its own part. On a side where it reaches up to the box, the image ends there; on the others it leaves
        a margin, half of what the neighboring fields share.
    """

    box: Box
    core: Box

    def __post_init__(self) -> None:
        (left, top, right, bottom), core = self.box, self.core
        if not (left <= core.left < core.right <= right and top <= core.top < core.bottom <= bottom):
            raise ValueError(f"the core {tuple(core)} must lie in the box {tuple(self.box)}")


@dataclass(frozen=True)
class FieldLattice:
    """The fields that cover an image; their cores tile it.

    Parameters
    ----------
    width, height : int
        Of the image, pixels.
    size : int
        Side of a field; the last of a row or column ends where the image does.
    overlap : int
        Pixels that neighbors share: even, at most half of `size`.
    """

    width: int
    height: int
    size: int = FIELD_SIZE
    overlap: int = FIELD_OVERLAP

    def __post_init__(self) -> None:
        if self.overlap % 2 or not 0 < self.overlap <= self.size // 2:
            raise ValueError(f"overlap must be even and at most {self.size // 2}, not {self.overlap}")

    @classmethod
    def for_networks(cls, width: int, height: int, size: int) -> FieldLattice:
        """The lattice for networks that see `size` × `size` pixels."""
        return cls(width, height, size, min(FIELD_OVERLAP, size // 4 * 2))

    @property
    def stride(self) -> int:
        """From one field to the next."""
        return self.size - self.overlap

    @property
    def columns(self) -> int:
        """Fields along x."""
        return len(self._starts(self.width))

    @property
    def rows(self) -> int:
        """Fields along y."""
        return len(self._starts(self.height))

    def __len__(self) -> int:
        return self.columns * self.rows

    def __iter__(self) -> Iterator[Field]:
        """The fields in row-major order."""
        for row in range(self.rows):
            for column in range(self.columns):
                yield self.field(column, row)

    def field(self, column: int, row: int) -> Field:
        """One of them."""
        left, right, core_left, core_right = self._span(column, self.width)
        top, bottom, core_top, core_bottom = self._span(row, self.height)
        return Field(Box(left, top, right, bottom), Box(core_left, core_top, core_right, core_bottom))

    def showing(self, box: Box) -> Iterator[tuple[int, int]]:
        """Column and row of the fields that show a part of a rectangle, in row-major order."""
        for row in self._between(box.top, box.bottom, self.height):
            for column in self._between(box.left, box.right, self.width):
                yield column, row

    def core_borders(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where cores begin, and the last one ends: (columns + 1,) along x and (rows + 1,) along y."""
        x, y = (
            np.array([0, *(start + self.overlap // 2 for start in self._starts(length)[1:]), length])
            for length in (self.width, self.height)
        )
        return x, y

    def _starts(self, length: int) -> range:
        return range(0, max(length - self.overlap, 1), self.stride)

    def _span(self, index: int, length: int) -> tuple[int, int, int, int]:
        """Start, end, start of core, end of core along one axis."""
        starts, half = self._starts(length), self.overlap // 2
        start = starts[index]
        end = min(start + self.size, length)
        core_start = start + half if index else 0
        core_end = end if index == len(starts) - 1 else end - half
        return start, end, core_start, core_end

    def _between(self, start: int, stop: int, length: int) -> range:
        """The fields along one axis that [start, stop) touches."""
        first = max(0, (start - self.size) // self.stride + 1)
        return range(first, min(len(self._starts(length)), -(-stop // self.stride)))
