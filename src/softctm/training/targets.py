"""Targets of cell networks, rendered from point annotations.

Each function returns (1 + labels, H, W) float32 at 0.2 mpp: none, then a map for each of `labels` (by default
background cell and tumor cell); non-negative, and summing to 1 at every pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from softctm.pair import CELL_MPP
from softctm.points import CellClass, CellPoints

_CLASSES = tuple(CellClass)


def circle_target(
    shape: tuple[int, int], points: CellPoints, radius_um: float = 1.4, labels: Sequence[int] = _CLASSES
) -> NDArray[np.float32]:
    """A disc of `radius_um` around every point; where discs overlap, the nearer point's class wins."""
    if len(points) == 0:
        return _with_background(np.zeros((len(labels), *shape), np.float32))
    distance, label = _nearest(shape, points)
    # 1.4 / 0.2 falls just short of 7: without the margin the pixels at distance 7 would be left out.
    inside = distance <= radius_um / CELL_MPP + 1e-6
    return _with_background(np.stack([inside & (label == own) for own in labels]).astype(np.float32))


def hard_target(
    nuclei: NDArray[np.int32], points: CellPoints, labels: Sequence[int] = _CLASSES
) -> NDArray[np.float32]:
    """Every nucleus filled with its class; `nuclei` as a `NucleusSegmenter` returns it."""
    classes = np.concatenate([[0], points.label])[nuclei]
    return _with_background(np.stack([classes == own for own in labels]).astype(np.float32))


def soft_target(
    nuclei: NDArray[np.int32],
    points: CellPoints,
    sigma_um: float = 3.0,
    labels: Sequence[int] = _CLASSES,
) -> NDArray[np.float32]:
    """A Gaussian around every point, 1 at the point, zero outside the nucleus masks.

    Within the masks the largest Gaussian wins: that of the nearest point, which also decides the class.
    Background is 1 − the cells' sum.

    Parameters
    ----------
    nuclei : (H, W) int32
        Nucleus masks; only inside or outside matters here.
    points : CellPoints
        The annotated cells.
    sigma_um : float
        Standard deviation of the Gaussians, µm.
    labels : sequence of int
        Labels that get a map each, in order.
    """
    if len(points) == 0:
        return _with_background(np.zeros((len(labels), *nuclei.shape), np.float32))
    distance, label = _nearest(nuclei.shape, points)
    value = np.exp(-0.5 * (distance * CELL_MPP / sigma_um) ** 2) * (nuclei > 0)
    return _with_background(np.stack([value * (label == own) for own in labels]).astype(np.float32))


def _nearest(shape: tuple[int, ...], points: CellPoints) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Distance in pixels to the nearest point, and that point's class."""
    label = np.zeros(shape, np.uint8)
    label[points.y, points.x] = points.label
    distance, index = ndimage.distance_transform_edt(label == 0, return_indices=True)
    return distance, label[index[0], index[1]]


def _with_background(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([1 - cells.sum(0, keepdims=True), cells])
