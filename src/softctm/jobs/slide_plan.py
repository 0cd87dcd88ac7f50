"""What there is to do on a slide: fields of view, in stretches that are computed and stored one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from softctm.pair import CELL_MPP
from softctm.slides.lattice import CORE, Box, CellLattice, TissueLattice
from softctm.slides.mask import MASK_MPP
from softctm.slides.region import Region
from softctm.slides.slide import Slide

Kind = Literal["tissue", "cells"]

STRETCH = {"tissue": 4, "cells": 4}
"""Fields a side of a stretch: 16 of them, some seconds of work, so that small slides spread, too."""

_REACH = 4
"""A field is looked at, too, if tissue or region lies within so many times the peak rule's distance of its
core: its points there decide which of its neighbor's stay."""


@dataclass(frozen=True)
class Stretch:
    """A square of fields of one kind: the unit of work, and of what an interruption costs.

    Attributes
    ----------
    kind : "tissue" or "cells"
    column, row : int
        In units of `STRETCH[kind]` fields.
    fields : tuple of (int, int)
        Column and row of those that are looked at, in row-major order.
    """

    kind: Kind
    column: int
    row: int
    fields: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        """Unique on a slide."""
        return f"{self.kind}-{self.row:04}-{self.column:04}"


@dataclass(frozen=True, eq=False)
class SlidePlan:
    """The fields that are looked at.

    Attributes
    ----------
    cell_lattice, tissue_lattice
    chosen : (rows, columns) bool
        The cell fields.
    tissue, cells : tuple of Stretch
        In row-major order.
    """

    cell_lattice: CellLattice
    tissue_lattice: TissueLattice
    chosen: NDArray[np.bool_]
    tissue: tuple[Stretch, ...]
    cells: tuple[Stretch, ...]

    @property
    def tissue_fields(self) -> int:
        """Number of tissue fields."""
        return sum(len(stretch.fields) for stretch in self.tissue)

    @property
    def cell_fields(self) -> int:
        """Number of cell fields."""
        return sum(len(stretch.fields) for stretch in self.cells)

    def needed_by(self, stretch: Stretch) -> list[str]:
        """Names of the tissue stretches that a stretch of cells looks at."""
        owners = self.tissue_lattice.owners(context_box(stretch))
        side = STRETCH["tissue"]
        near = {(column // side, row // side) for column, row in owners}
        return [part.name for part in self.tissue if (part.column, part.row) in near]


def plan_slide(slide: Slide, mask: NDArray[np.bool_], region: Region | None, distance: int) -> SlidePlan:
    """Choose the fields of a slide.

    Parameters
    ----------
    slide : Slide
    mask : (H, W) bool
        Where there is tissue, at `MASK_MPP`.
    region : Region, optional
        Replaces the mask.
    distance : int
        Of the peak rule, pixels of 0.2 µm.
    """
    cell_lattice, tissue_lattice = CellLattice.of(slide), TissueLattice.of(slide)
    reach = _REACH * distance
    if region is None:
        chosen = _with_tissue(cell_lattice, mask, reach)
    else:
        chosen = _with_region(cell_lattice, region, slide, reach)
    rows, columns = np.nonzero(chosen)
    fields = list(zip(columns.tolist(), rows.tolist(), strict=True))
    looked_at = {owner for field in fields for owner in tissue_lattice.owners(CellLattice.context(*field))}
    return SlidePlan(
        cell_lattice,
        tissue_lattice,
        chosen,
        tuple(_stretches("tissue", looked_at)),
        tuple(_stretches("cells", fields)),
    )


def context_box(stretch: Stretch) -> Box:
    """The part of the tissue map that a stretch's fields look at; it may leave the map."""
    boxes = [CellLattice.context(*field) for field in stretch.fields]
    return Box(
        min(box.x0 for box in boxes),
        min(box.y0 for box in boxes),
        max(box.x1 for box in boxes),
        max(box.y1 for box in boxes),
    )


def _stretches(kind: Kind, fields: Iterable[tuple[int, int]]) -> Iterator[Stretch]:
    side = STRETCH[kind]
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for column, row in sorted(fields, key=lambda field: field[::-1]):
        groups.setdefault((row // side, column // side), []).append((column, row))
    for (row, column), members in sorted(groups.items()):
        yield Stretch(kind, column, row, tuple(members))


def _with_tissue(lattice: CellLattice, mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Fields whose core, widened by `reach` pixels, holds a pixel of the mask."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    scale = MASK_MPP / CELL_MPP
    (y0, y1), (x0, x1) = (
        _covered(count, length, reach, scale)
        for count, length in ((lattice.rows, mask.shape[0]), (lattice.columns, mask.shape[1]))
    )
    counts = sums[np.ix_(y1, x1)] - sums[np.ix_(y0, x1)] - sums[np.ix_(y1, x0)] + sums[np.ix_(y0, x0)]
    chosen: NDArray[np.bool_] = counts > 0
    return chosen


def _covered(
    count: int, length: int, reach: int, scale: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last + 1 mask pixel that each widened core touches."""
    start = np.arange(count) * CORE
    first = np.floor((start - reach) / scale).astype(np.int64)
    last = np.ceil((start + CORE + reach) / scale).astype(np.int64)
    return first.clip(0, length), last.clip(0, length)


def _with_region(lattice: CellLattice, region: Region, slide: Slide, reach: int) -> NDArray[np.bool_]:
    """Fields whose core, widened by `reach` pixels, holds a part of the region."""
    chosen = np.zeros((lattice.rows, lattice.columns), np.bool_)
    scale_x, scale_y = (CELL_MPP / mpp for mpp in slide.mpp)
    x0, y0, x1, y1 = region.bounds
    for row in _range(y0 / scale_y, y1 / scale_y, reach, lattice.rows):
        for column in _range(x0 / scale_x, x1 / scale_x, reach, lattice.columns):
            left, top = column * CORE - reach, row * CORE - reach
            side = CORE + 2 * reach
            chosen[row, column] = region.touches(
                left * scale_x, top * scale_y, (left + side) * scale_x, (top + side) * scale_y
            )
    return chosen


def _range(start: float, stop: float, reach: int, count: int) -> range:
    return range(max(0, int((start - reach) // CORE)), min(count, int((stop + reach) // CORE) + 1))
