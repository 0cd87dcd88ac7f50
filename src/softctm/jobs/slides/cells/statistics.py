"""The numbers of a slide: cells, areas and densities, inside and outside of the cancer area."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.box import Box
from softctm.jobs.slides.cells.tissue_map import TissueMap
from softctm.jobs.slides.numbers import ratio
from softctm.pair import TISSUE_MPP
from softctm.slides.mask import MASK_MPP
from softctm.writers.slide_points import SlideCells

_CANCER = 128
"""Values of the tissue map from here on are cancer area: a probability above one half."""
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
    mm2 : (H, W) float32
        Area of each pixel that the slide covers; the shares are of that.

    Attributes
    ----------
    density : (2, H, W) uint16
        Cells a pixel: background cells, tumor cells.
    """

    def __init__(
        self,
        mask: NDArray[np.bool_],
        looked_at: NDArray[np.float32],
        cancer: NDArray[np.float32],
        mm2: NDArray[np.float32],
    ) -> None:
        self.mask, self.looked_at, self.cancer, self._mm2 = mask, looked_at, cancer, mm2
        self.density = np.zeros((2, *mask.shape), np.uint16)
        self._counts = np.zeros((2, 2), np.int64)  # class, then outside and inside of the cancer area

    def add(self, cells: SlideCells) -> None:
        """Count cells."""
        tumor = cells.is_tumor.astype(np.int64)
        inside = (cells.tissue_probability * np.float32(255) >= _CANCER - 0.5).astype(np.int64)
        np.add.at(self._counts, (tumor, inside), 1)
        row, column = ((place / MASK_MPP).astype(np.int64) for place in (cells.y_um, cells.x_um))
        np.add.at(self.density, (tumor, row, column), 1)

    def document(self) -> dict[str, Any]:
        """As `slide.json` holds them: counts, mm², cells a mm²; None where there is nothing to divide by."""
        seen = self.looked_at * self._mm2
        cancer = float((self.cancer * seen).sum())
        tissue = float((self.mask * seen).sum())
        outside = float((self.mask * (1 - self.cancer) * seen).sum())
        return {
            **_part(self._counts.sum(axis=1), tissue, "tissue_mm2"),
            "cancer_area": _part(self._counts[:, 1], cancer, "mm2"),
            "outside_cancer_area": _part(self._counts[:, 0], outside, "mm2"),
        }


def cancer_share(tissue_map: TissueMap, cancer: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Share of each mask pixel that is cancer area by the stored tissue map, (H, W).

    Parameters
    ----------
    tissue_map : TissueMap
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
            window = tissue_map.window(box)
            if window is not None:
                is_cancer = window[cancer] >= _CANCER
                blocks = is_cancer.reshape(h, _BLOCK, w, _BLOCK)
                share[row : row + h, column : column + w] = blocks.mean(axis=(1, 3), dtype=np.float32)
    return share


def _part(counts: NDArray[np.int64], area: float, area_name: str) -> dict[str, Any]:
    background, tumor = int(counts[0]), int(counts[1])
    return {
        "background_cells": background,
        "tumor_cells": tumor,
        "tumor_purity": ratio(tumor, background + tumor),
        area_name: round(area, 4),
        "background_cells_per_mm2": ratio(background, area),
        "tumor_cells_per_mm2": ratio(tumor, area),
    }
