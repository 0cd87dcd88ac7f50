"""The tissue map of a slide while it is made: squares of it on disk, and windows from them."""

from __future__ import annotations

import io
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.box import Box
from softctm.jobs.slides.cells.plan import square_box, squares_of
from softctm.jobs.slides.plan import stretch_name
from softctm.jobs.slides.state import SlideState, npy_bytes
from softctm.slides.lattice import TissueLattice

_SQUARES = 4
"""Squares of the tissue map that are kept for the next windows: 8 MB each with two classes."""

BACKGROUND = 255
"""Of the tissue map's first class where nobody looked: outside of the slide, and where it has no tissue."""


class TissueMap:
    """The stored tissue map of a slide.

    Parameters
    ----------
    state : SlideState
        Holds squares of it as `packed_square` makes them.
    lattice : TissueLattice
    """

    def __init__(self, state: SlideState, lattice: TissueLattice) -> None:
        self._state, self.lattice = state, lattice
        self._squares: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()

    def window(self, box: Box) -> NDArray[np.uint8] | None:
        """A window, (C, h, w) uint8; None where nobody looked at any of it.

        Background where nobody looked, and outside of the slide.
        """
        window = None
        for column, row in squares_of(box, self.lattice):
            square = self._square(column, row)
            if square is not None:
                window = empty_map(len(square), box.height, box.width) if window is None else window
                paste(square, square_box(self.lattice, column, row), window, box)
        return window

    def _square(self, column: int, row: int) -> NDArray[np.uint8] | None:
        """What is stored of a square of the lattice, None where nobody looked."""
        place = (column, row)
        if place not in self._squares:
            name = stretch_name("tissue", *place)
            if not self._state.file(name).is_file():
                return None
            self._squares[place] = self._state.read(name, _unpacked_square)
            if len(self._squares) > _SQUARES:
                self._squares.popitem(last=False)
        self._squares.move_to_end(place)
        return self._squares[place]


def packed_square(square: NDArray[np.uint8]) -> bytes:
    """The part of the map that a stretch's square of the lattice owns, (C, h, w) uint8, as it is stored."""
    return zlib.compress(npy_bytes(square), level=1)


def _unpacked_square(path: Path) -> NDArray[np.uint8]:
    square: NDArray[np.uint8] = np.load(io.BytesIO(zlib.decompress(path.read_bytes())))
    return square


def empty_map(classes: int, height: int, width: int) -> NDArray[np.uint8]:
    """A tissue map of background only, (C, h, w) uint8."""
    tissue_map = np.zeros((classes, height, width), np.uint8)
    tissue_map[0] = BACKGROUND
    return tissue_map


def paste(source: NDArray[np.uint8], at: Box, target: NDArray[np.uint8], window: Box) -> None:
    """Copy what (C, h, w) `source`, lying at `at`, has in common with `target`, lying at `window`."""
    left, right = max(at.left, window.left), min(at.right, window.right)
    top, bottom = max(at.top, window.top), min(at.bottom, window.bottom)
    if left < right and top < bottom:
        target[:, top - window.top : bottom - window.top, left - window.left : right - window.left] = source[
            :, top - at.top : bottom - at.top, left - at.left : right - at.left
        ]
