"""Nucleus masks around annotated points: the classical way, and NuClick as an ONNX file.

A segmenter takes a patch and its annotated points and returns one label image in which pixel value i + 1
belongs to the nucleus of point i.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import color, filters, segmentation

from softctm.errors import ModelError
from softctm.pair import CELL_MPP
from softctm.points import CellPoints

FALLBACK_RADIUS_UM = 2.5
"""Radius of the disc that stands for a nucleus which could not be segmented."""

MAX_RADIUS_UM = 7.0
"""No nucleus reaches further from its annotated point."""

SEED_RADIUS_UM = 1.4
"""The watershed starts from discs of this radius: nuclei are seldom smaller."""

MIN_AREA_UM2 = 8.0
"""Smaller segments, which are little more than their seed, are failures."""


class NucleusSegmenter(Protocol):
    """Turns points into nucleus masks."""

    def __call__(self, image: NDArray[np.uint8], points: CellPoints) -> NDArray[np.int32]:
        """(H, W, 3) uint8 RGB at 0.2 mpp and N points → (H, W) int32, 0 outside, i + 1 in nucleus i."""
        ...


@dataclass(frozen=True)
class ClassicalSegmenter:
    """Hematoxylin by color deconvolution, then a watershed grown from the annotated points.

    The hematoxylin density is thresholded by Otsu's method; the watershed floods the smoothed density
    from a disc at each point, within that threshold and within `MAX_RADIUS_UM`; holes (the pale inside of
    vesicular nuclei) are filled. Where what results is smaller
    than `MIN_AREA_UM2`, a disc takes its place.
    """

    def __call__(self, image: NDArray[np.uint8], points: CellPoints) -> NDArray[np.int32]:
        """Segment all nuclei of a patch; see `NucleusSegmenter`."""
        height, width = image.shape[:2]
        if len(points) == 0:
            return np.zeros((height, width), np.int32)
        density = filters.gaussian(color.rgb2hed(image)[..., 0], sigma=0.4 / CELL_MPP)
        seeds = np.zeros((height, width), np.int32)
        seeds[points.y, points.x] = np.arange(1, len(points) + 1)
        distance, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
        owner = seeds[nearest[0], nearest[1]]
        markers = np.where(distance <= SEED_RADIUS_UM / CELL_MPP, owner, 0)
        allowed = (density > filters.threshold_otsu(density)) & (distance <= MAX_RADIUS_UM / CELL_MPP)
        flooded = ndimage.binary_fill_holes(allowed | (markers > 0)) & (distance <= MAX_RADIUS_UM / CELL_MPP)
        labels = segmentation.watershed(-density, markers, mask=flooded)
        labels = _replace_failures(labels.astype(np.int32), points, distance, owner)
        # A flood may run on through the surroundings of other points; what is too far goes to the nearest.
        rows, columns = np.nonzero(labels)
        own = labels[rows, columns] - 1
        is_far = np.hypot(columns - points.x[own], rows - points.y[own]) > MAX_RADIUS_UM / CELL_MPP
        labels[rows[is_far], columns[is_far]] = owner[rows[is_far], columns[is_far]]
        return labels


class NuClickSegmenter:
    """NuClick (Alemi Koohbanani et al. 2020, arXiv 2005.14511) from an ONNX file that the user has.

    The network takes (B, 5, 128, 128) float32 at 0.25 mpp in the reference; here crops of 128 pixels of the
    patch as it is: RGB in [0, 1], the guiding point of the nucleus, the points of the others. It returns
    the nucleus's probability or logit, (B, 1, 128, 128).
    """

    SIDE = 128
    BATCH = 32

    def __init__(self, path: Path, *, logits: bool = True) -> None:
        """Open the network; `logits` says that its output still needs a sigmoid."""
        import onnxruntime

        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises its own unrelated types
            raise ModelError(f"{path}: cannot be opened as NuClick network ({error})") from None
        shape = self._session.get_inputs()[0].shape
        if len(shape) != 4 or shape[1] != 5:
            raise ModelError(f"{path}: NuClick takes 5 channels (RGB, this point, other points), not {shape}")
        self._path, self._logits = path, logits
        self._threshold = 0.0 if logits else 0.5
        self._sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        """An open session cannot go to another process; its file is opened again there."""
        return partial(NuClickSegmenter, logits=self._logits), (self._path,)

    def __repr__(self) -> str:
        """Names the network, so that arrays made with another one are not taken for its own."""
        return f"NuClickSegmenter({self._sha256[:12]}, {self._threshold})"

    def __call__(self, image: NDArray[np.uint8], points: CellPoints) -> NDArray[np.int32]:
        """Segment all nuclei of a patch; where they overlap, the nearer point's wins."""
        height, width = image.shape[:2]
        half = self.SIDE // 2
        rgb = np.pad(image, ((half, half), (half, half), (0, 0)), mode="reflect").astype(np.float32) / 255
        clicks = np.zeros(rgb.shape[:2], np.float32)
        clicks[points.y + half, points.x + half] = 1
        labels = np.zeros(rgb.shape[:2], np.int32)
        closest = np.full(rgb.shape[:2], np.inf)
        offset = np.hypot(*np.mgrid[-half:half, -half:half])
        within_reach = offset <= MAX_RADIUS_UM / CELL_MPP
        name = self._session.get_inputs()[0].name
        for start in range(0, len(points), self.BATCH):
            chosen = range(start, min(start + self.BATCH, len(points)))
            windows = [
                (slice(points.y[i], points.y[i] + self.SIDE), slice(points.x[i], points.x[i] + self.SIDE))
                for i in chosen
            ]
            own = np.zeros((self.SIDE, self.SIDE), np.float32)
            own[half, half] = 1
            batch = np.stack(
                [
                    np.concatenate([rgb[w].transpose(2, 0, 1), own[None], (clicks[w] - own)[None]])
                    for w in windows
                ]
            )
            output = self._session.run(None, {name: batch})[0][:, 0]
            for i, window, score in zip(chosen, windows, output, strict=True):
                inside = (score > self._threshold) & (offset < closest[window]) & within_reach
                labels[window][inside] = i + 1
                closest[window][inside] = offset[inside]
        crop = (slice(half, half + height), slice(half, half + width))
        seeds = np.ones((height, width), bool)
        seeds[points.y, points.x] = False
        if len(points) == 0:
            return labels[crop]
        distance, nearest = ndimage.distance_transform_edt(seeds, return_indices=True)
        index = np.zeros((height, width), np.int32)
        index[points.y, points.x] = np.arange(1, len(points) + 1)
        owner = index[nearest[0], nearest[1]]
        return _replace_failures(labels[crop].copy(), points, distance, owner)


def _replace_failures(
    labels: NDArray[np.int32],
    points: CellPoints,
    distance: NDArray[np.float64],
    owner: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Put a disc where a nucleus is too small."""
    area = np.bincount(labels.ravel(), minlength=len(points) + 1)[1:]
    is_failed = np.concatenate([[False], area < MIN_AREA_UM2 / CELL_MPP**2])
    labels[is_failed[labels]] = 0
    disc = (distance <= FALLBACK_RADIUS_UM / CELL_MPP) & is_failed[owner] & (labels == 0)
    labels[disc] = owner[disc]
    return labels
