"""Compute stretches of a slide: while one field is in the networks, a thread reads the next ones."""

from __future__ import annotations

import contextlib
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.errors import PairError, SlideError
from softctm.inference.stage_times import timed
from softctm.jobs.background import Background
from softctm.jobs.slide_detector import FieldDetector, cancer_class
from softctm.jobs.slide_plan import Stretch, context_box
from softctm.jobs.slide_state import CELL_RECORD, SlideState, empty_map, paste, square_box
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP, ZOOM
from softctm.points import CellClass, DetectedCells
from softctm.slides.lattice import CORE, MARGIN, TISSUE_STRIDE, CellLattice, TissueLattice
from softctm.slides.slide import Slide

_AHEAD = 2
"""Fields that are read ahead, 3 MB each."""
_BLOCKS = 32
"""Blocks of 512² of the slide at 0.8 µm that are kept for the neighboring tissue fields: 25 MB."""

Seconds = dict[str, float]


class StretchWork:
    """Computes stretches of one slide and stores them.

    Parameters
    ----------
    slide : Slide
    detector : FieldDetector
    state : SlideState
    tissue_lattice : TissueLattice

    Attributes
    ----------
    seconds : dict
        Time spent in `read` (beside the rest, in a thread), in `wait_for_input`, in `tissue` and `cells` (the
        detector), and of these in `networks`.
    """

    def __init__(
        self, slide: Slide, detector: FieldDetector, state: SlideState, tissue_lattice: TissueLattice
    ) -> None:
        self._slide, self._detector, self._state, self._lattice = slide, detector, state, tissue_lattice
        self._blocks: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._cancer = cancer_class(detector.model)
        self.seconds: Seconds = dict.fromkeys(
            ("read", "wait_for_input", "tissue", "cells", "networks", "write"), 0.0
        )

    def run(self, stretches: Sequence[Stretch], field_done: Callable[[str], None] = lambda kind: None) -> int:
        """Compute stretches of one kind in order, those that are stored already excepted.

        Parameters
        ----------
        stretches : sequence of Stretch
        field_done : callable
            Called with the kind after each field.

        Returns
        -------
        int
            Cells found in them, before seams are resolved.

        Raises
        ------
        SlideError
            If the slide cannot be read, or a network gives NaN.
        OutputError
            If the state cannot be written.
        """
        open_ones = [stretch for stretch in stretches if not self._state.is_done(stretch)]
        before, count = self._detector.seconds_in_networks, 0
        fields = [(stretch.kind, field) for stretch in open_ones for field in stretch.fields]
        with (
            contextlib.closing(self._read_ahead(fields)) as images,
            Background("write") as writing,
        ):
            for stretch in open_ones:
                if stretch.kind == "tissue":
                    square = self._tissue(stretch, images, field_done)
                    writing.begin(self._timed_write, self._state.write_tissue, stretch, square)
                else:
                    cells = self._cells(stretch, images, field_done)
                    count += len(cells)
                    writing.begin(self._timed_write, self._state.write_cells, stretch, cells)
        self.seconds["networks"] += self._detector.seconds_in_networks - before
        return count

    def _tissue(
        self,
        stretch: Stretch,
        images: Generator[NDArray[np.uint8], None, None],
        field_done: Callable[[str], None],
    ) -> NDArray[np.uint8]:
        """The part of the tissue map that the stretch's square of the lattice owns."""
        square: NDArray[np.uint8] | None = None
        at = square_box(self._lattice, stretch.column, stretch.row)
        for field in stretch.fields:
            image = self._next(images)
            with timed(self.seconds, "tissue"), self._named(field):
                found = self._detector.tissue_map(image)
                tissue_map = np.rint(found.clip(0, 1) * 255).astype(np.uint8)
            if square is None:
                square = empty_map(len(tissue_map), at.height, at.width)
            x, y = TissueLattice.corner(*field)
            kept = self._lattice.kept(*field)
            inner = tissue_map[:, kept.y0 - y : kept.y1 - y, kept.x0 - x : kept.x1 - x]
            paste(inner, kept, square, at)
            field_done("tissue")
        assert square is not None
        return square

    def _cells(
        self,
        stretch: Stretch,
        images: Generator[NDArray[np.uint8], None, None],
        field_done: Callable[[str], None],
    ) -> NDArray[np.void]:
        """The cells that the stretch's fields own."""
        box, window = context_box(stretch), None
        records = [np.zeros(0, CELL_RECORD)]
        for field in stretch.fields:
            image = self._next(images)
            if window is None:
                window = self._state.tissue_map(box, self._lattice)
                assert window is not None, "the tissue map comes before the cells"
            part = CellLattice.context(*field)
            at = (slice(None), slice(part.y0 - box.y0, part.y1 - box.y0))
            context = window[(*at, slice(part.x0 - box.x0, part.x1 - box.x0))]
            with timed(self.seconds, "cells"), self._named(field):
                found = self._detector.find_cells(image, context.astype(np.float32) / np.float32(255))
            records.append(self._owned(field, found, context[self._cancer]))
            field_done("cells")
        return np.concatenate(records)

    def _owned(
        self, field: tuple[int, int], found: DetectedCells, cancer: NDArray[np.uint8]
    ) -> NDArray[np.void]:
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

    def _read_ahead(
        self, fields: Iterable[tuple[str, tuple[int, int]]]
    ) -> Generator[NDArray[np.uint8], None, None]:
        """The fields' images in order, a few of them read in a thread before they are asked for."""
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read")
        waiting: deque[Future[NDArray[np.uint8]]] = deque()
        try:
            for kind, field in fields:
                read = self._read_tissue if kind == "tissue" else self._read_cells
                waiting.append(executor.submit(self._timed_read, read, field))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def _read_cells(self, field: tuple[int, int]) -> NDArray[np.uint8]:
        return self._slide.read(*CellLattice.corner(*field), PATCH_SIZE, PATCH_SIZE, CELL_MPP)

    def _read_tissue(self, field: tuple[int, int]) -> NDArray[np.uint8]:
        """A tissue field, put together from blocks that it shares with its neighbors."""
        column, row = field
        image = np.empty((PATCH_SIZE, PATCH_SIZE, 3), np.uint8)
        for down in range(2):
            for across in range(2):
                top, left = down * TISSUE_STRIDE, across * TISSUE_STRIDE
                image[top : top + TISSUE_STRIDE, left : left + TISSUE_STRIDE] = self._block(
                    column + across, row + down
                )
        return image

    def _block(self, column: int, row: int) -> NDArray[np.uint8]:
        place = (column, row)
        if place not in self._blocks:
            x, y = column * TISSUE_STRIDE, row * TISSUE_STRIDE
            self._blocks[place] = self._slide.read(x, y, TISSUE_STRIDE, TISSUE_STRIDE, TISSUE_MPP)
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(place)
        return self._blocks[place]

    @contextlib.contextmanager
    def _named(self, field: tuple[int, int]) -> Generator[None, None, None]:
        """Let an error of the networks say on which slide and where."""
        try:
            yield
        except PairError as error:
            raise SlideError(f"{self._slide.path}: field {field[0]}, {field[1]}: {error}") from error

    def _next(self, images: Generator[NDArray[np.uint8], None, None]) -> NDArray[np.uint8]:
        with timed(self.seconds, "wait_for_input"):
            return next(images)

    def _timed_read(
        self, read: Callable[[tuple[int, int]], NDArray[np.uint8]], field: tuple[int, int]
    ) -> NDArray[np.uint8]:
        with timed(self.seconds, "read"):
            return read(field)

    def _timed_write(
        self, write: Callable[[Stretch, NDArray[Any]], None], stretch: Stretch, content: NDArray[Any]
    ) -> None:
        with timed(self.seconds, "write"):
            write(stretch, content)
