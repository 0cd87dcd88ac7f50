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
    """The nuclei of one map; all parts have the same rows.

    Attributes
    ----------
    table : NucleiTable
    outlines : Outlines
    features : NucleiFeatures
    embeddings : (N, D) float16, or None where they were not asked for
        See `softctm.postprocessing.embeddings`.
    """

    table: NucleiTable
    outlines: Outlines
    features: NucleiFeatures
    embeddings: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        rows = {len(self.table), len(self.outlines), len(self.features.area_um2)}
        if self.embeddings is not None:
            rows.add(len(self.embeddings))
        if len(rows) > 1:
            raise ValueError("table, outlines, features and embeddings must have the same rows")

    def __len__(self) -> int:
        return len(self.table)

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> MeasuredNuclei:
        """The nuclei that a mask (N,) or indices choose."""
        vectors = None if self.embeddings is None else self.embeddings[chosen]
        return MeasuredNuclei(
            self.table.where(chosen), self.outlines.where(chosen), self.features.where(chosen), vectors
        )

    def moved(self, x: int, y: int, ids: NDArray[np.int32]) -> MeasuredNuclei:
        """The same nuclei with other ids, in a map whose origin lies x pixels to the left and y above."""
        outlines = Outlines(ids, self.outlines.start, self.outlines.corners + np.array([x, y]))
        return MeasuredNuclei(self.table.moved(x, y, ids), outlines, self.features, self.embeddings)

    @classmethod
    def concatenated(cls, parts: Sequence[MeasuredNuclei]) -> MeasuredNuclei:
        """The nuclei of several maps, one at least, in their order; all of them with embeddings or none."""
        vectors = [part.embeddings for part in parts if part.embeddings is not None]
        return cls(
            NucleiTable.concatenated([part.table for part in parts]),
            Outlines.concatenated([part.outlines for part in parts]),
            NucleiFeatures.concatenated([part.features for part in parts]),
            np.concatenate(vectors) if vectors else None,
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
