"""The fields of a slide in which nuclei are looked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softctm.jobs.slides.plan import CoreGrid, SlidePlan, choose_fields, fields_of, stretches_of
from softctm.postprocessing.field_lattice import FieldLattice
from softctm.slides.region import Region
from softctm.slides.slide import Slide

KIND = "nuclei"

STRETCH = 4
"""Fields a side of a stretch: 16 of them."""

_REACH = 2
"""A field is looked at, too, if tissue or region lies within so many overlaps of its core: nuclei that the
neighbor's border cuts are left to it, and what it sees decides which of the neighbor's stay."""


def plan_nuclei(
    slide: Slide, mask: NDArray[np.bool_], region: Region | None, lattice: FieldLattice, mpp: float
) -> SlidePlan:
    """Choose the fields of a slide.

    Parameters
    ----------
    slide : Slide
    mask : (H, W) bool
        Where there is tissue, at `MASK_MPP`.
    region : Region, optional
        Replaces the mask.
    lattice : FieldLattice
        Of the slide at `mpp`.
    mpp : float
        µm per pixel that the networks see.
    """
    grid = CoreGrid(*lattice.core_borders(), mpp)
    chosen = choose_fields(grid, slide, mask, region, _REACH * lattice.overlap)
    return SlidePlan(grid, chosen, {KIND: tuple(stretches_of(KIND, fields_of(chosen), STRETCH))})


def slide_lattice(slide: Slide, size: int, mpp: float) -> FieldLattice:
    """The lattice of a slide for networks that see `size` × `size` pixels of `mpp` µm."""
    return FieldLattice.for_networks(*slide.size_at(mpp), size)
