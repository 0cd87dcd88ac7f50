"""The fields of a slide on which cells are looked for, and the tissue fields that they look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softctm.box import Box
from softctm.jobs.slides.plan import (
    CoreGrid,
    SlidePlan,
    Stretch,
    choose_fields,
    fields_of,
    stretch_name,
    stretches_of,
)
from softctm.pair import CELL_MPP
from softctm.slides.lattice import CORE, CellLattice, TissueLattice
from softctm.slides.region import Region
from softctm.slides.slide import Slide

STRETCH = {"tissue": 4, "cells": 4}
"""Fields a side of a stretch: 16 of them, some seconds of work, so that small slides spread, too."""

_REACH = 4
"""A field is looked at, too, if tissue or region lies within so many times the peak rule's distance of its
core: its points there decide which of its neighbor's stay."""


def plan_cells(slide: Slide, mask: NDArray[np.bool_], region: Region | None, distance: int) -> SlidePlan:
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
    lattice, tissue_lattice = CellLattice.of(slide), TissueLattice.of(slide)
    grid = CoreGrid(np.arange(lattice.columns + 1) * CORE, np.arange(lattice.rows + 1) * CORE, CELL_MPP)
    chosen = choose_fields(grid, slide, mask, region, _REACH * distance)
    fields = fields_of(chosen)
    seen = {owner for field in fields for owner in tissue_lattice.owners(CellLattice.context(*field))}
    tissue = tuple(stretches_of("tissue", seen, STRETCH["tissue"]))
    cells = tuple(stretches_of("cells", fields, STRETCH["cells"]))
    needs = {stretch.name: _needed_by(stretch, tissue_lattice, tissue) for stretch in cells}
    return SlidePlan(grid, chosen, {"tissue": tissue, "cells": cells}, needs)


def context_box(stretch: Stretch) -> Box:
    """The part of the tissue map that a stretch's fields look at; it may leave the map."""
    boxes = [CellLattice.context(*field) for field in stretch.fields]
    return Box(
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.right for box in boxes),
        max(box.bottom for box in boxes),
    )


def squares_of(box: Box, lattice: TissueLattice) -> list[tuple[int, int]]:
    """Column and row of the tissue stretches' squares of the lattice that own a part of a box, sorted."""
    side = STRETCH["tissue"]
    return sorted({(column // side, row // side) for column, row in lattice.owners(box)})


def square_box(lattice: TissueLattice, column: int, row: int) -> Box:
    """The part of the tissue map that a stretch's square of the lattice owns."""
    side = STRETCH["tissue"]
    first = lattice.kept(column * side, row * side)
    last = lattice.kept(
        min((column + 1) * side, lattice.columns) - 1, min((row + 1) * side, lattice.rows) - 1
    )
    return Box(first.left, first.top, last.right, last.bottom)


def _needed_by(stretch: Stretch, lattice: TissueLattice, tissue: tuple[Stretch, ...]) -> tuple[str, ...]:
    """Names of the tissue stretches that a stretch of cells looks at."""
    near = {stretch_name("tissue", *square) for square in squares_of(context_box(stretch), lattice)}
    return tuple(part.name for part in tissue if part.name in near)
