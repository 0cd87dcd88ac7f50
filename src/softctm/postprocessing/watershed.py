"""From cell probabilities to cells by segmentation, for networks trained on hard nucleus masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from softctm.ort.runtime import Runtime, Value
from softctm.points import CellClass, CellPoints, DetectedCells


@dataclass(frozen=True)
class Watershed:
    """How a segmentation becomes cells.

    Attributes
    ----------
    min_area_px : int
        Objects of fewer pixels of 0.2 µm are dropped.
    distance_px : int
        Least distance between the markers that split touching nuclei, pixels.
    """

    min_area_px: int = 64
    distance_px: int = 7

    def __post_init__(self) -> None:
        if self.min_area_px < 1:
            raise ValueError(f"min_area_px must be at least 1, not {self.min_area_px}")
        if self.distance_px < 1:
            raise ValueError(f"distance_px must be at least 1, not {self.distance_px}")


class WatershedDecoder:
    """The method made ready; it runs on the host."""

    def __init__(self, settings: Watershed, runtime: Runtime) -> None:
        self._settings = settings

    def __call__(self, maps: Mapping[str, Value]) -> DetectedCells:
        """The cells in `maps["cells"]`, (1, 3, H, W) float32 probabilities."""
        return cells_by_watershed(maps["cells"].numpy()[0], self._settings)


def cells_by_watershed(probability: NDArray[np.float32], rule: Watershed) -> DetectedCells:
    """Otsu on the foreground, fill holes, drop small objects, split by watershed, one cell an object.

    The watershed floods the negated distance transform from its maxima. An object's class is the one that
    most of its pixels prefer (background cell where equal), its place its center of mass, its score the mean
    probability of its class.

    Parameters
    ----------
    probability : (3, H, W) float32
        None, background cell, tumor cell.

    Returns
    -------
    DetectedCells
        In the order of the objects' first pixels.
    """
    # Takes half a second to import, and only models of this kind need it.
    from skimage.feature import peak_local_max
    from skimage.filters import threshold_otsu
    from skimage.segmentation import watershed

    foreground = 1 - probability[0]
    if foreground.max() == foreground.min():
        return DetectedCells.empty()
    mask = ndimage.binary_fill_holes(foreground > threshold_otsu(foreground))
    regions, _ = ndimage.label(mask)
    large = np.bincount(regions.ravel()) >= rule.min_area_px
    large[0] = False
    mask, regions = large[regions], np.where(large[regions], regions, 0)
    distance = ndimage.distance_transform_edt(mask)
    markers = np.zeros(mask.shape, np.int32)
    peaks = peak_local_max(distance, min_distance=rule.distance_px, labels=regions, exclude_border=False)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    objects = watershed(-distance, markers, mask=mask)
    numbers, first = np.unique(objects, return_index=True)
    numbers = numbers[numbers > 0][np.argsort(first[numbers > 0])]
    if not len(numbers):
        return DetectedCells.empty()
    centers = np.array(ndimage.center_of_mass(mask, objects, numbers))
    tumor_share = ndimage.mean(probability[2] > probability[1], objects, numbers)
    means = np.stack([ndimage.mean(plane, objects, numbers) for plane in probability], axis=1)
    is_tumor = tumor_share > 0.5
    rows, columns = np.floor(centers + 0.5).astype(np.int32).T
    points = CellPoints(
        columns,
        rows,
        np.where(is_tumor, CellClass.TUMOR, CellClass.BACKGROUND).astype(np.uint8),
        np.clip(np.where(is_tumor, means[:, 2], means[:, 1]), 0, 1).astype(np.float32),
    )
    return DetectedCells(points, means.astype(np.float32), (1 - means[:, 0]).astype(np.float32))
