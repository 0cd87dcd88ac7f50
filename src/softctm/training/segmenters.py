"""Nucleus masks around annotated points: the classical way, and by a network that the points guide.

A segmenter takes a patch and its annotated points and returns one label image in which pixel value i + 1
belongs to the nucleus of point i.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
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


NUCLICK_MPP = 0.25
"""Of NuClick's reference network (Alemi Koohbanani et al. 2020, arXiv 2005.14511)."""

NUCLICK_SIDE = 128
"""Of its crops, pixels."""

POINTS_FILE = Path("model_weights/points/segmenter.onnx")
"""The network of `--segmenter points`."""

Pixel = TypeVar("Pixel", np.uint8, np.int32)


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


class PointGuidedSegmenter:
    """A network that outlines the nucleus at a given point, from an ONNX file: ours, or NuClick's.

    The network takes crops (B, 5, S, S) float32: RGB in [0, 1], a map with a 1 at the nucleus's point, which
    is in the middle, and a map with a 1 at each of the other points. It returns the nucleus's logit, (B, 1,
    S, S). The file's metadata tell the pixels' size, "mpp"; `NUCLICK_MPP` where they do not.

    Of a mask in several parts the largest stays, and its holes are filled. Where masks overlap, each pixel
    belongs to the nucleus that is most probable there. A disc takes the place of what is too small.

    Raises
    ------
    ModelError
        If the file is no such network.
    """

    BATCH = 32

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # targets are rendered by several processes
        try:
            content = path.read_bytes()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises its own unrelated types
            raise ModelError(
                f"{path}: cannot be opened as a network that outlines nuclei ({error}); "
                "train one by `softctm train points`"
            ) from None
        (image, *_), (output, *_) = self._session.get_inputs(), self._session.get_outputs()
        shape = image.shape
        if len(shape) != 4 or shape[1] != 5 or len(output.shape) != 4 or output.shape[1] != 1:
            raise ModelError(
                f"{path}: must take 5 channels (RGB, this point, other points) and return one, "
                f"not {shape} and {output.shape}"
            )
        side = shape[3] if isinstance(shape[3], int) else NUCLICK_SIDE
        self._path, self._side, self._input = path, side, image.name
        self._mpp = _mpp_of(self._session.get_modelmeta().custom_metadata_map, path)
        self._sha256 = hashlib.sha256(content).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        """An open session cannot go to another process; its file is opened again there."""
        return PointGuidedSegmenter, (self._path,)

    def __repr__(self) -> str:
        """Names the network, so that arrays made with another one are not taken for its own."""
        return f"PointGuidedSegmenter({self._sha256[:12]})"

    def __call__(self, image: NDArray[np.uint8], points: CellPoints) -> NDArray[np.int32]:
        """Segment all nuclei of a patch; see `NucleusSegmenter`."""
        height, width = image.shape[:2]
        if len(points) == 0:
            return np.zeros((height, width), np.int32)
        seeds = np.zeros((height, width), np.int32)
        seeds[points.y, points.x] = np.arange(1, len(points) + 1)
        distance, nearest = ndimage.distance_transform_edt(seeds == 0, return_indices=True)
        owner = seeds[nearest[0], nearest[1]]
        zoom = CELL_MPP / self._mpp
        size = (max(1, round(height * zoom)), max(1, round(width * zoom)))
        rows, columns = (
            np.clip(np.floor((values + 0.5) * zoom), 0, side - 1).astype(np.int64)
            for values, side in zip((points.y, points.x), size, strict=True)
        )
        labels = _resized(self._outlined(_resized(image, size), rows, columns), (height, width))
        return _replace_failures(labels.copy(), points, distance, owner)

    def _outlined(
        self, image: NDArray[np.uint8], rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """Label image at the network's resolution."""
        half = self._side // 2
        rgb = np.pad(image, ((half, half), (half, half), (0, 0)), mode="reflect").astype(np.float32) / 255
        clicks = np.zeros(rgb.shape[:2], np.float32)
        clicks[rows + half, columns + half] = 1
        own = np.zeros((self._side, self._side), np.float32)
        own[half, half] = 1
        reach = np.arange(self._side) - half
        within_reach = np.hypot(reach[:, None], reach) <= MAX_RADIUS_UM / self._mpp
        labels, best = np.zeros(rgb.shape[:2], np.int32), np.zeros(rgb.shape[:2], np.float32)
        windows = [
            (slice(row, row + self._side), slice(column, column + self._side))
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        ]
        for start in range(0, len(windows), self.BATCH):
            chosen = windows[start : start + self.BATCH]
            batch = np.stack([np.stack([*rgb[w].transpose(2, 0, 1), own, clicks[w] - own]) for w in chosen])
            (logits,) = self._session.run(None, {self._input: batch})
            for number, (window, logit) in enumerate(zip(chosen, logits[:, 0], strict=True), start=start + 1):
                mask = _in_one_part((logit > 0) & within_reach)
                logit = np.where(mask, np.maximum(logit, np.finfo(np.float32).tiny), 0)
                is_best = logit > best[window]
                labels[window][is_best] = number
                best[window][is_best] = logit[is_best]
        return labels[half:-half, half:-half]


def open_segmenter(name: str) -> NucleusSegmenter:
    """The segmenter of that name: "classical", "points", or the path of a point-guided network's file.

    "points" is `model_weights/points/segmenter.onnx`, beside the program or in the working directory.

    Raises
    ------
    ModelError
        If there is no such network, or the file is none.
    """
    if name == "classical":
        return ClassicalSegmenter()
    if name != "points":
        return PointGuidedSegmenter(Path(name))
    beside_program = Path(__file__).resolve().parents[3]
    for folder in (beside_program, Path()):
        if (path := folder / POINTS_FILE).is_file():
            return PointGuidedSegmenter(path)
    raise ModelError(
        f"{POINTS_FILE}: not found; name a network that `softctm train points` made by --segmenter FILE"
    )


def _mpp_of(facts: Mapping[str, str], path: Path) -> float:
    text = facts.get("mpp", str(NUCLICK_MPP))
    try:
        mpp = float(text)
    except ValueError:
        mpp = 0.0
    if not 0.05 <= mpp <= 2:
        raise ModelError(f"{path}: its mpp is '{text}', not µm per pixel in 0.05 … 2; export it again")
    return mpp


def _resized(pixels: NDArray[Pixel], size: tuple[int, int]) -> NDArray[Pixel]:
    """An image, or labels at the nearest pixel, of another height and width."""
    if pixels.shape[:2] == size:
        return pixels
    kind = Image.Resampling.BICUBIC if pixels.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], kind))


def _in_one_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest part of a mask, without holes."""
    parts, count = ndimage.label(mask)
    if count > 1:
        mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(mask)
    return filled


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
