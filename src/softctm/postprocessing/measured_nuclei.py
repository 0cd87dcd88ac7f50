"""Nuclei with all that is written about them: table, outlines and measurements, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.nuclei_table import NucleiTable
from softctm.postprocessing.nuclei_features import NucleiFeatures, measure_nuclei
from softctm.postprocessing.outlines import Outlines, outlines


@dataclass(frozen=True)
class MeasuredNuclei:
    """The nuclei of one map; the three parts have the same rows.

    Attributes
    ----------
    table : NucleiTable
    outlines : Outlines
    features : NucleiFeatures
    """

    table: NucleiTable
    outlines: Outlines
    features: NucleiFeatures

    def __post_init__(self) -> None:
        if not len(self.table) == len(self.outlines) == len(self.features.area_um2):
            raise ValueError("table, outlines and features must have the same rows")

    def __len__(self) -> int:
        return len(self.table)

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> MeasuredNuclei:
        """The nuclei that a mask (N,) or indices choose."""
        return MeasuredNuclei(
            self.table.where(chosen), self.outlines.where(chosen), self.features.where(chosen)
        )

    def moved(self, x: int, y: int, ids: NDArray[np.int32]) -> MeasuredNuclei:
        """The same nuclei with other ids, in a map whose origin lies x pixels to the left and y above."""
        outlines = Outlines(ids, self.outlines.start, self.outlines.corners + np.array([x, y]))
        return MeasuredNuclei(self.table.moved(x, y, ids), outlines, self.features)

    @classmethod
    def concatenated(cls, parts: Sequence[MeasuredNuclei]) -> MeasuredNuclei:
        """The nuclei of several maps, one at least, in their order."""
        return cls(
            NucleiTable.concatenated([part.table for part in parts]),
            Outlines.concatenated([part.outlines for part in parts]),
            NucleiFeatures.concatenated([part.features for part in parts]),
        )


def measured_nuclei(
    image: NDArray[np.uint8], instances: NDArray[np.integer], table: NucleiTable, *, mpp: float
) -> MeasuredNuclei:
    """Outline and measure the nuclei of a table.

    Parameters
    ----------
    image : (H, W, 3) uint8
    instances : (H, W) integer
    table : NucleiTable
        Nuclei of that map.
    mpp : float
        µm per pixel.
    """
    found = outlines(instances)
    return MeasuredNuclei(
        table, found.where(np.isin(found.id, table.id)), measure_nuclei(image, instances, table, mpp=mpp)
    )
