"""The two kinds of field in which cells are looked for: tissue, and the cells in it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from softctm.jobs.slides.cells.detector import FieldDetector, cancer_class
from softctm.jobs.slides.cells.plan import context_box, square_box
from softctm.jobs.slides.cells.tissue_map import TissueMap, empty_map, packed_square, paste
from softctm.jobs.slides.plan import Stretch
from softctm.jobs.slides.state import npy_bytes
from softctm.jobs.slides.stretches import FieldPlace
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP, ZOOM
from softctm.points import CellClass, DetectedCells
from softctm.slides.lattice import CORE, MARGIN, TISSUE_STRIDE, CellLattice, TissueLattice
from softctm.slides.slide import Slide

_BLOCKS = 32
"""Blocks of 512² of the slide at 0.8 µm that are kept for the neighboring tissue fields: 25 MB."""

CELL_RECORD = np.dtype(
    [
        ("x", "<i4"),
        ("y", "<i4"),
        ("label", "u1"),
        ("tissue", "u1"),
        ("score", "<f4"),
        ("other", "<f4"),
        ("height", "<f4"),
    ]
)
"""A cell as it is stored: place on the slide (pixels of 0.2 µm), class, probability of cancer area there
(255 = 1), probabilities of its class and of the other one, blurred foreground."""


class TissueFields:
    """A `FieldKind`: the tissue map.

    Parameters
    ----------
    slide : Slide
    detector : FieldDetector
    """

    def __init__(self, slide: Slide, detector: FieldDetector) -> None:
        self._slide, self._detector, self._lattice = slide, detector, TissueLattice.of(slide)
        self._blocks: OrderedDict[tuple[int, int], Future[NDArray[np.uint8]]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, field: FieldPlace) -> NDArray[np.uint8]:
        """See `FieldKind.read`; put together from blocks that the field shares with its neighbors."""
        column, row = field
        image = np.empty((PATCH_SIZE, PATCH_SIZE, 3), np.uint8)
        for down in range(2):
            for across in range(2):
                top, left = down * TISSUE_STRIDE, across * TISSUE_STRIDE
                image[top : top + TISSUE_STRIDE, left : left + TISSUE_STRIDE] = self._block(
                    column + across, row + down
                )
        return image

    def begin(self, stretch: Stretch) -> _TissueSquare:
        """See `FieldKind.begin`."""
        return _TissueSquare(self._detector, self._lattice, stretch)

    def _block(self, column: int, row: int) -> NDArray[np.uint8]:
        """Read by whoever asks first; the others wait for it."""
        place, mine = (column, row), Future[NDArray[np.uint8]]()
        with self._lock:
            block = self._blocks.setdefault(place, mine)
            self._blocks.move_to_end(place)
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        if block is mine:
            x, y = column * TISSUE_STRIDE, row * TISSUE_STRIDE
            try:
                mine.set_result(self._slide.read(x, y, TISSUE_STRIDE, TISSUE_STRIDE, TISSUE_MPP))
            except BaseException as error:
                mine.set_exception(error)
        return block.result()


class _TissueSquare:
    """The part of the tissue map that a stretch's square of the lattice owns."""

    def __init__(self, detector: FieldDetector, lattice: TissueLattice, stretch: Stretch) -> None:
        self._detector, self._lattice = detector, lattice
        self._at = square_box(lattice, stretch.column, stretch.row)
        self._square: NDArray[np.uint8] | None = None

    def look(self, field: FieldPlace, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of the field that is kept, (C, h, w)."""
        found = self._detector.tissue_map(image)
        x, y = TissueLattice.corner(*field)
        kept = self._lattice.kept(*field)
        inner = found[:, kept.top - y : kept.bottom - y, kept.left - x : kept.right - x]
        tissue_map: NDArray[np.uint8] = np.rint(inner.clip(0, 1) * 255).astype(np.uint8)
        return tissue_map

    def add(self, field: FieldPlace, found: NDArray[np.uint8]) -> None:
        if self._square is None:
            self._square = empty_map(len(found), self._at.height, self._at.width)
        paste(found, self._lattice.kept(*field), self._square, self._at)

    def content(self) -> bytes:
        assert self._square is not None, "a stretch has a field"
        return packed_square(self._square)


class CellFields:
    """A `FieldKind`: cells, given the tissue map.

    Parameters
    ----------
    slide : Slide
    detector : FieldDetector
    tissue_map : TissueMap
    """

    def __init__(self, slide: Slide, detector: FieldDetector, tissue_map: TissueMap) -> None:
        self._slide, self._detector, self._map = slide, detector, tissue_map

    def read(self, field: FieldPlace) -> NDArray[np.uint8]:
        """See `FieldKind.read`."""
        return self._slide.read(*CellLattice.corner(*field), PATCH_SIZE, PATCH_SIZE, CELL_MPP)

    def begin(self, stretch: Stretch) -> _Cells:
        """See `FieldKind.begin`."""
        return _Cells(self._slide, self._detector, self._map, stretch)


class _Cells:
    """The cells that a stretch's fields own."""

    def __init__(
        self, slide: Slide, detector: FieldDetector, tissue_map: TissueMap, stretch: Stretch
    ) -> None:
        self._slide, self._detector = slide, detector
        self._cancer = cancer_class(detector.model)
        self._box = context_box(stretch)
        window = tissue_map.window(self._box)
        assert window is not None, "the tissue map comes before the cells"
        self._window = window
        self._records = [np.zeros(0, CELL_RECORD)]

    def look(self, field: FieldPlace, image: NDArray[np.uint8]) -> NDArray[np.void]:
        """(N,) `CELL_RECORD`, as they were found."""
        part, box = CellLattice.context(*field), self._box
        at = (slice(None), slice(part.top - box.top, part.bottom - box.top))
        context = self._window[(*at, slice(part.left - box.left, part.right - box.left))]
        found = self._detector.find_cells(image, context.astype(np.float32) / np.float32(255))
        return self._owned(field, found, context[self._cancer])

    def add(self, field: FieldPlace, found: NDArray[np.void]) -> None:
        self._records.append(found)

    def content(self) -> bytes:
        """(N,) `CELL_RECORD`, in row-major order of fields, then as found."""
        return npy_bytes(np.concatenate(self._records))

    def _owned(self, field: FieldPlace, found: DetectedCells, cancer: NDArray[np.uint8]) -> NDArray[np.void]:
        """The cells whose points lie in the field's core and on the slide."""
        points, probability = found.points, found.probability
        corner_x, corner_y = CellLattice.corner(*field)
        x, y = points.x + np.int32(corner_x), points.y + np.int32(corner_y)
        owned = (points.x >= MARGIN) & (points.x < MARGIN + CORE)
        owned &= (points.y >= MARGIN) & (points.y < MARGIN + CORE)
        owned &= (x + 0.5) * CELL_MPP < self._slide.width_um
        owned &= (y + 0.5) * CELL_MPP < self._slide.height_um
        cells = np.zeros(int(owned.sum()), CELL_RECORD)
        label = points.label[owned]
        rows = np.arange(len(label))
        chosen = probability[owned]
        cells["x"], cells["y"], cells["label"] = x[owned], y[owned], label
        cells["tissue"] = cancer[points.y[owned] // ZOOM, points.x[owned] // ZOOM]
        cells["score"] = points.score[owned]
        other = CellClass.BACKGROUND + CellClass.TUMOR - label.astype(np.int64)
        cells["other"] = chosen[rows, other].clip(0, 1)
        cells["height"] = found.height[owned]
        return cells
