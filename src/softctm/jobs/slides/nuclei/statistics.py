"""The numbers of a slide: nuclei by type, areas and densities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.jobs.slides.numbers import ratio
from softctm.nuclei_table import NucleusType
from softctm.postprocessing.measured_nuclei import MeasuredNuclei
from softctm.slides.mask import MASK_MPP


class NucleiStatistics:
    """Collects a slide's nuclei; areas of tissue are counted on the mask's grid of 16 µm.

    Parameters
    ----------
    mask : (H, W) bool
        Where there is tissue.
    looked_at : (H, W) float32
        Share of each pixel that was looked at: of the fields' cores, or of the region.
    mm2 : (H, W) float32
        Area of each pixel that the slide covers; the share is of that.
    types : sequence of NucleusType
        By number, background first: that of nuclei in which no type was seen.
    mpp : float
        µm per pixel of the nuclei's positions.

    Attributes
    ----------
    density : (types, H, W) uint16
        Nuclei a pixel, by type.
    """

    def __init__(
        self,
        mask: NDArray[np.bool_],
        looked_at: NDArray[np.float32],
        mm2: NDArray[np.float32],
        types: Sequence[NucleusType],
        mpp: float,
    ) -> None:
        self.mask, self.looked_at, self._mm2 = mask, looked_at, mm2
        self._types, self._mpp = types, mpp
        self.density = np.zeros((len(types), *mask.shape), np.uint16)
        self._counts = np.zeros(len(types), np.int64)
        self._areas = np.zeros(len(types))

    def add(self, nuclei: MeasuredNuclei) -> None:
        """Count nuclei."""
        table = nuclei.table
        np.add.at(self._counts, table.type, 1)
        np.add.at(self._areas, table.type, nuclei.features.area_um2)
        # A center in the slide's last, partly covered pixel may lie beyond the grid by rounding.
        row, column = (
            ((place + 0.5) * self._mpp / MASK_MPP).astype(np.int64).clip(0, length - 1)
            for place, length in zip((table.y, table.x), self.mask.shape, strict=True)
        )
        np.add.at(self.density, (table.type, row, column), 1)

    @property
    def by_count(self) -> list[int]:
        """Numbers of the types that were seen, the most frequent first."""
        order = np.argsort(-self._counts, kind="stable")
        return [int(kind) for kind in order if self._counts[kind]]

    def document(self) -> dict[str, Any]:
        """As `slide.json` holds them: counts, mm², nuclei a mm²; None where there is nothing to divide by."""
        tissue = float((self.mask * self.looked_at * self._mm2).sum())
        total = int(self._counts.sum())
        return {
            **_part(total, float(self._areas.sum()), tissue),
            "tissue_mm2": round(tissue, 4),
            "types": {
                kind.name: {"share": ratio(int(count), total), **_part(int(count), float(area), tissue)}
                for kind, count, area in zip(self._types, self._counts, self._areas, strict=True)
            },
        }


def _part(count: int, area: float, tissue: float) -> dict[str, Any]:
    return {
        "nuclei": count,
        "nuclei_per_mm2": ratio(count, tissue),
        "mean_area_um2": ratio(area, count),
    }
