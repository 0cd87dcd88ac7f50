"""Nuclei: where they lie, how large they are, what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from softctm.pair import PATCH_SIZE, TISSUE_MPP
from softctm.phantom.noise import FIELD, Float


@dataclass(frozen=True, eq=False)
class Nuclei:
    """All nuclei of the scene, one entry each.

    Attributes
    ----------
    center : (N, 2) float64
        x and y, µm.
    axes : (N, 2) float64
        Half the length and half the width, µm.
    angle : (N,) float64
        Direction of the length, radians.
    tumor : (N,) bool
    density : (N,) float64
        Amount of hematoxylin.
    vesicular : (N,) float64
        0 (evenly dark) … 1 (pale with a dark rim, clumps and nucleoli).
    lobes : (N, 4, 2) float64
        Relative amplitude and phase of the outline's harmonics 2 … 5.
    """

    center: NDArray[np.float64]
    axes: NDArray[np.float64]
    angle: NDArray[np.float64]
    tumor: NDArray[np.bool_]
    density: NDArray[np.float64]
    vesicular: NDArray[np.float64]
    lobes: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.tumor)

    @classmethod
    def join(cls, groups: Sequence[Nuclei]) -> Nuclei:
        """All nuclei of several groups, in their order."""
        return cls(*(np.concatenate([getattr(g, field.name) for g in groups]) for field in fields(cls)))

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Nuclei:
        """The chosen nuclei, in the order of `index`."""
        return Nuclei(*(getattr(self, field.name)[index] for field in fields(self)))


def crowd(rng: np.random.Generator, where: Float, spacing: float) -> NDArray[np.float64]:
    """Points (N, 2) of a loosened hexagonal packing, in the inside of `where`."""
    rows, columns = np.mgrid[: FIELD / (spacing * 0.866) + 1, : FIELD / spacing + 1]
    points = np.stack([(columns + 0.5 * (rows % 2)) * spacing, rows * spacing * 0.866], axis=-1).reshape(
        -1, 2
    )
    points = points + rng.normal(0, 0.17 * spacing, points.shape)
    return points[rng.random(len(points)) < 0.94 * (look_up(where, points) > 0.8)]


def scatter(rng: np.random.Generator, where: Float, per_area: float) -> NDArray[np.float64]:
    """Points (N, 2) of a Poisson process with `where` · `per_area` points a µm²."""
    points = rng.uniform(0, FIELD, (int(FIELD**2 * per_area), 2))
    return points[rng.random(len(points)) < look_up(where, points)]


def look_up(values: Float, points: NDArray[np.float64]) -> Float:
    """Values on the tissue grid at points in µm; 0 outside."""
    column, row = np.floor(points / TISSUE_MPP).astype(np.intp).T
    inside = (column >= 0) & (column < PATCH_SIZE) & (row >= 0) & (row < PATCH_SIZE)
    return np.asarray(
        np.where(inside, values[row.clip(0, PATCH_SIZE - 1), column.clip(0, PATCH_SIZE - 1)], 0)
    )


def draw_tumor(rng: np.random.Generator, center: NDArray[np.float64], radius: float, pallor: float) -> Nuclei:
    """Large, unequal, irregular nuclei of mean radius `radius` µm, as vesicular as `pallor` (0 … 1) says."""
    n = len(center)
    length = radius * rng.lognormal(0, 0.13, n).clip(0.7, 1.35)
    vesicular = np.clip(pallor + rng.normal(0, 0.15, n), 0, 1)
    return Nuclei(
        center,
        np.stack([length * rng.uniform(1.0, 1.2, n), length * rng.uniform(0.78, 0.98, n)], axis=1),
        rng.uniform(0, np.pi, n),
        np.ones(n, dtype=bool),
        rng.normal(0.72, 0.09, n) - 0.26 * vesicular,
        vesicular,
        _lobes(rng, n, 0.045),
    )


def draw_lymphocytes(rng: np.random.Generator, center: NDArray[np.float64]) -> Nuclei:
    """Small, round, dark nuclei."""
    n = len(center)
    radius = rng.normal(3.25, 0.25, n)
    return Nuclei(
        center,
        np.stack([radius * rng.uniform(1.0, 1.15, n), radius * rng.uniform(0.9, 1.0, n)], axis=1),
        rng.uniform(0, np.pi, n),
        np.zeros(n, dtype=bool),
        rng.normal(0.86, 0.09, n),
        rng.uniform(0.05, 0.3, n),
        _lobes(rng, n, 0.02),
    )


def draw_spindles(
    rng: np.random.Generator, center: NDArray[np.float64], directions: NDArray[np.float64]
) -> Nuclei:
    """Nuclei of fibroblasts; `directions` (1024, 1024) are the fibres', radians, on the tissue grid."""
    n = len(center)
    return Nuclei(
        center,
        np.stack([rng.uniform(4.5, 8.0, n), rng.uniform(1.4, 2.3, n)], axis=1),
        look_up(directions, center) + rng.normal(0, 0.18, n),
        np.zeros(n, dtype=bool),
        rng.normal(0.72, 0.1, n),
        rng.uniform(0.0, 0.5, n),
        _lobes(rng, n, 0.03),
    )


def _lobes(rng: np.random.Generator, count: int, amplitude: float) -> NDArray[np.float64]:
    fading = amplitude * np.array([1.0, 0.8, 0.45, 0.3])
    return np.stack([rng.normal(0, fading, (count, 4)), rng.uniform(0, 2 * np.pi, (count, 4))], axis=-1)


def without_overlap(nuclei: Nuclei) -> Nuclei:
    """Of nuclei that lie on each other the earlier stays; spindles count as narrow."""
    reach = np.sqrt(nuclei.axes.prod(axis=1))
    keep = np.ones(len(nuclei), dtype=bool)
    pairs = cKDTree(nuclei.center).query_pairs(2 * float(reach.max()), output_type="ndarray")
    gap = np.linalg.norm(nuclei.center[pairs[:, 0]] - nuclei.center[pairs[:, 1]], axis=1)
    close = pairs[gap < 0.93 * reach[pairs].sum(axis=1)]
    for earlier, later in close[np.lexsort((close[:, 0], close[:, 1]))]:
        if keep[earlier]:
            keep[later] = False
    return nuclei.take(keep)
