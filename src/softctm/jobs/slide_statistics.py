"""The numbers of a slide: cells, areas and densities, inside and outside of the cancer area."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.jobs.slide_plan import SlidePlan
from softctm.jobs.slide_state import SlideState
from softctm.pair import CELL_MPP, TISSUE_MPP
from softctm.slides.lattice import CORE, Box, TissueLattice
from softctm.slides.mask import MASK_MPP
from softctm.slides.region import Region
from softctm.slides.slide import Slide
from softctm.writers.slide_points import SlideCells

_CANCER = 128
"""Values of the tissue map from here on are cancer area: a probability above one half."""
_MM2 = (MASK_MPP / 1000) ** 2
_BLOCK = round(MASK_MPP / TISSUE_MPP)
"""Pixels of the tissue map a side of a mask pixel."""


class SlideStatistics:
    """Collects a slide's cells; areas are counted on the mask's grid of 16 µm.

    Parameters
    ----------
    mask : (H, W) bool
        Where there is tissue.
    looked_at : (H, W) float32
        Share of each pixel that was looked at: of the fields' cores, or of the region.
    cancer : (H, W) float32
        Share of each pixel that is cancer area.

    Attributes
    ----------
    density : (2, H, W) uint16
        Cells a pixel: background cells, tumor cells.
    """

    def __init__(
        self, mask: NDArray[np.bool_], looked_at: NDArray[np.float32], cancer: NDArray[np.float32]
    ) -> None:
        self.mask, self.looked_at, self.cancer = mask, looked_at, cancer
        self.density = np.zeros((2, *mask.shape), np.uint16)
        self._counts = np.zeros((2, 2), np.int64)  # class, then outside and inside of the cancer area

    def add(self, cells: SlideCells) -> None:
        """Count cells."""
        tumor = cells.is_tumor.astype(np.int64)
        inside = (cells.tissue_probability * np.float32(255) >= _CANCER - 0.5).astype(np.int64)
        np.add.at(self._counts, (tumor, inside), 1)
        row, column = ((place / MASK_MPP).astype(np.int64) for place in (cells.y_um, cells.x_um))
        np.add.at(self.density, (tumor, row, column), 1)

    @property
    def total(self) -> int:
        """All cells."""
        return int(self._counts.sum())

    def document(self) -> dict[str, Any]:
        """As `slide.json` holds them: counts, mm², cells a mm²; None where there is nothing to divide by."""
        cancer = float((self.cancer * self.looked_at).sum() * _MM2)
        tissue = float((self.mask * self.looked_at).sum() * _MM2)
        outside = float((self.mask * (1 - self.cancer) * self.looked_at).sum() * _MM2)
        return {
            **_part(self._counts.sum(axis=1), tissue, "tissue_mm2"),
            "cancer_area": _part(self._counts[:, 1], cancer, "mm2"),
            "outside_cancer_area": _part(self._counts[:, 0], outside, "mm2"),
        }


def looked_at(plan: SlidePlan, region: Region | None, slide: Slide) -> NDArray[np.float32]:
    """Share of each mask pixel that was looked at, (H, W)."""
    width, height = slide.size_at(MASK_MPP)
    if region is not None:
        scale = (MASK_MPP / slide.mpp[0], MASK_MPP / slide.mpp[1])
        return region.share_of_pixels(width, height, scale)
    core = CORE * CELL_MPP
    rows, columns = (((np.arange(side) + 0.5) * MASK_MPP // core).astype(int) for side in (height, width))
    rows, columns = rows.clip(0, plan.chosen.shape[0] - 1), columns.clip(0, plan.chosen.shape[1] - 1)
    share: NDArray[np.float32] = plan.chosen[np.ix_(rows, columns)].astype(np.float32)
    return share


def cancer_share(
    state: SlideState, lattice: TissueLattice, cancer: int, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Share of each mask pixel that is cancer area by the stored tissue map, (H, W).

    Parameters
    ----------
    state : SlideState
    lattice : TissueLattice
    cancer : int
        Number of the tissue class.
    shape : (int, int)
        Of the mask.
    """
    share = np.zeros(shape, np.float32)
    step = 64  # mask pixels; 1280 of the map
    for row in range(0, shape[0], step):
        for column in range(0, shape[1], step):
            h, w = min(step, shape[0] - row), min(step, shape[1] - column)
            box = Box(*(side * _BLOCK for side in (column, row, column + w, row + h)))
            tissue_map = state.tissue_map(box, lattice)
            if tissue_map is not None:
                is_cancer = tissue_map[cancer] >= _CANCER
                blocks = is_cancer.reshape(h, _BLOCK, w, _BLOCK)
                share[row : row + h, column : column + w] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return share


def _part(counts: NDArray[np.int64], area: float, area_name: str) -> dict[str, Any]:
    background, tumor = int(counts[0]), int(counts[1])
    return {
        "background_cells": background,
        "tumor_cells": tumor,
        "tumor_purity": _ratio(tumor, background + tumor),
        area_name: round(area, 4),
        "background_cells_per_mm2": _ratio(background, area),
        "tumor_cells_per_mm2": _ratio(tumor, area),
    }


def _ratio(count: int, of: float) -> float | None:
    return round(count / of, 4) if of > 0 else None
