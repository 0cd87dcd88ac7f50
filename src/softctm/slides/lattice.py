"""Fields of view: how a slide is cut for the networks, and which field owns which pixel.

Both lattices begin at the slide's origin: a field is the same whatever part of the slide is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.box import Box
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP, WINDOW_SIZE, ZOOM
from softctm.slides.slide import Slide

MARGIN = 64
"""Of a cell field, around the core that it owns, pixels of 0.2 µm."""
CORE = PATCH_SIZE - 2 * MARGIN
"""Side of a cell field's core, and the cell fields' stride."""
TISSUE_STRIDE = PATCH_SIZE // 2
CONTEXT_STRIDE = CORE // ZOOM
"""Stride of the cell fields in the tissue map, pixels of 0.8 µm."""
CONTEXT_MARGIN = MARGIN // ZOOM
CELL_FIELD_MM2 = (CORE * CELL_MPP / 1000) ** 2
TISSUE_FIELD_MM2 = (TISSUE_STRIDE * TISSUE_MPP / 1000) ** 2
"""What a field adds to a large area."""


@dataclass(frozen=True)
class Lattice:
    """The fields of one kind: `columns` × `rows` of them, each named by its column and row."""

    columns: int
    rows: int

    def __len__(self) -> int:
        return self.columns * self.rows


class CellLattice(Lattice):
    """Cell fields: 1024² pixels of 0.2 µm, whose cores of 896² tile the slide from its origin."""

    @classmethod
    def of(cls, slide: Slide) -> CellLattice:
        """The fields that cover a slide."""
        width, height = slide.size_at(CELL_MPP)
        return cls(-(-width // CORE), -(-height // CORE))

    @staticmethod
    def corner(column: int, row: int) -> tuple[int, int]:
        """Top left pixel of a field, x and y at 0.2 µm; −64 for the first ones."""
        return column * CORE - MARGIN, row * CORE - MARGIN

    @staticmethod
    def context(column: int, row: int) -> Box:
        """The 256² pixels of the tissue map that a field covers; they may leave the map."""
        x, y = column * CONTEXT_STRIDE - CONTEXT_MARGIN, row * CONTEXT_STRIDE - CONTEXT_MARGIN
        return Box(x, y, x + WINDOW_SIZE, y + WINDOW_SIZE)


@dataclass(frozen=True)
class TissueLattice(Lattice):
    """Tissue fields: 1024² pixels of 0.8 µm from every 512th on; of each the inner 512² is kept.

    The outer ones keep what lies up to the slide's border, too.

    Attributes
    ----------
    width, height : int
        Of the tissue map.
    """

    width: int
    height: int

    @classmethod
    def of(cls, slide: Slide) -> TissueLattice:
        """The fields that cover a slide."""
        width, height = slide.size_at(TISSUE_MPP)
        columns, rows = (max(1, -(-side // TISSUE_STRIDE) - 1) for side in (width, height))
        return cls(columns, rows, width, height)

    @staticmethod
    def corner(column: int, row: int) -> tuple[int, int]:
        """Top left pixel of a field, x and y at 0.8 µm."""
        return column * TISSUE_STRIDE, row * TISSUE_STRIDE

    def kept(self, column: int, row: int) -> Box:
        """The part of the tissue map that a field owns."""
        left, right = _kept(column, self.columns, self.width)
        top, bottom = _kept(row, self.rows, self.height)
        return Box(left, top, right, bottom)

    def owners(self, box: Box) -> Iterator[tuple[int, int]]:
        """The fields (column, row) that own a pixel of a box; what lies outside of the map has no owner."""
        for row in _owners(box.top, box.bottom, self.rows, self.height):
            for column in _owners(box.left, box.right, self.columns, self.width):
                yield column, row


def core_of(x: NDArray[np.int32], y: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Column and row of the cell field whose core holds each point, given in pixels of 0.2 µm."""
    return x // np.int32(CORE), y // np.int32(CORE)


def _kept(index: int, count: int, length: int) -> tuple[int, int]:
    quarter = TISSUE_STRIDE // 2
    first = 0 if index == 0 else index * TISSUE_STRIDE + quarter
    last = length if index == count - 1 else (index + 1) * TISSUE_STRIDE + quarter
    return first, last


def _owners(start: int, stop: int, count: int, length: int) -> range:
    start, stop = max(start, 0), min(stop, length)
    if start >= stop:
        return range(0)
    first, last = ((place - TISSUE_STRIDE // 2) // TISSUE_STRIDE for place in (start, stop - 1))
    return range(min(max(first, 0), count - 1), min(max(last, 0), count - 1) + 1)
