"""From the stretches' cells to the slide's: seams resolved, the region applied, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from softctm.jobs.slides.cells.seams import duplicates, near_seam
from softctm.jobs.slides.plan import Stretch
from softctm.jobs.slides.state import SlideState
from softctm.jobs.slides.stretches import FieldPlace
from softctm.pair import CELL_MPP
from softctm.slides.lattice import core_of
from softctm.slides.region import Region
from softctm.slides.slide import Slide
from softctm.writers.slide_points import SlideCells


def slide_cells(
    state: SlideState, stretches: Sequence[Stretch], slide: Slide, region: Region | None, distance: int
) -> Iterator[tuple[FieldPlace, SlideCells]]:
    """The cells of a slide, a field at a time, fields in row-major order, cells as they were found.

    Two passes over what is stored: one for the few cells near seams, one for all. In memory are those few,
    and the cells of one row of stretches.

    Parameters
    ----------
    state : SlideState
        Holds all `stretches`.
    stretches : sequence of Stretch
        Of cells, in row-major order.
    slide : Slide
    region : Region, optional
        Cells outside of it are left out, after seams are resolved.
    distance : int
        Of the peak rule, pixels of 0.2 µm.

    Yields
    ------
    (column, row) of the field, and its cells; fields without cells are left out.
    """
    gone = _duplicates(state, stretches, distance)
    for _, row_of_stretches in groupby(stretches, key=lambda stretch: stretch.row):
        cells = np.concatenate([_stored(state, stretch) for stretch in row_of_stretches])
        cells = cells[~np.isin(_place(cells), gone)]
        if not len(cells):
            continue
        column, row = core_of(cells["x"], cells["y"])
        order = np.lexsort((column, row))
        cells, column, row = cells[order], column[order], row[order]
        borders = np.flatnonzero((np.diff(column, prepend=-1) != 0) | (np.diff(row, prepend=-1) != 0))
        for start, stop in zip(borders, [*borders[1:], len(cells)], strict=True):
            found = _on_slide(cells[start:stop], slide)
            if region is not None:
                found = _chosen(found, region.contains(found.x, found.y))
            if len(found):
                yield (int(column[start]), int(row[start])), found


def _stored(state: SlideState, stretch: Stretch) -> NDArray[np.void]:
    """A stretch's cells, (N,) `CELL_RECORD`."""
    found: NDArray[np.void] = state.read(stretch.name, np.load)
    return found


def _duplicates(state: SlideState, stretches: Sequence[Stretch], distance: int) -> NDArray[np.int64]:
    """Places of the cells that go, because another field's stays."""
    parts = []
    for stretch in stretches:
        cells = _stored(state, stretch)
        parts.append(cells[near_seam(cells["x"], cells["y"], distance)])
    if not parts:
        return np.zeros(0, np.int64)
    near = np.concatenate(parts)
    return _place(near)[duplicates(near["x"], near["y"], near["height"], distance)]


def _place(cells: NDArray[np.void]) -> NDArray[np.int64]:
    """A number for each pixel of the slide; no two cells share a pixel."""
    place: NDArray[np.int64] = (cells["y"].astype(np.int64) << 32) + cells["x"]
    return place


def _on_slide(cells: NDArray[np.void], slide: Slide) -> SlideCells:
    x_um, y_um = ((cells[axis] + 0.5) * CELL_MPP for axis in ("x", "y"))
    return SlideCells(
        x=x_um / slide.mpp[0],
        y=y_um / slide.mpp[1],
        x_um=x_um,
        y_um=y_um,
        label=cells["label"],
        probability=cells["score"],
        other_probability=cells["other"],
        tissue_probability=cells["tissue"].astype(np.float32) / np.float32(255),
    )


def _chosen(cells: SlideCells, which: NDArray[np.bool_]) -> SlideCells:
    return SlideCells(**{name: column[which] for name, column in vars(cells).items()})
