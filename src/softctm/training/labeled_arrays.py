"""Labeled images of any size and scale as arrays of patches, such as training on pairs has them.

Images larger than a patch are cut into patches that overlap; smaller ones are joined to mosaics, so that no
crop has to be magnified to fill the network's input.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softctm.datasets.dataset_images import read_rgb
from softctm.datasets.labeled_images import CellImage, LabeledCells, LabeledImage, TissueImage
from softctm.datasets.ocelot import TISSUE_BACKGROUND, TISSUE_CANCER
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP
from softctm.points import CellClass, CellPoints
from softctm.progress import SILENT, Progress
from softctm.storage.derived import derived_array
from softctm.training.arrays import TrainingArrays, arrays_digest, shrink
from softctm.training.config import TargetConfig
from softctm.training.segmenters import NucleusSegmenter
from softctm.training.targets import circle_target, hard_target, soft_target

_UNKNOWN_CELL = 1 + max(CellClass)
"""Label, while targets are rendered, of a cell whose class is unknown."""

_LABELS = (*CellClass, _UNKNOWN_CELL)

Labeled = tuple[NDArray[np.uint8], NDArray[np.integer]]
"""RGB (3, H, W) and target (…, H, W) of one image or patch at the network's resolution."""


def load_labeled_cells(
    images: Sequence[CellImage],
    factor: int,
    target: TargetConfig,
    segmenter: NucleusSegmenter,
    cache: Path,
    seed: int,
    progress: Progress = SILENT,
) -> TrainingArrays:
    """Everything a cell-only network is pretrained on.

    The targets have a third map: cells whose class is unknown; see `share_unknown_cells`.
    """

    def read(image: CellImage) -> Labeled:
        rgb = at_scale(image, CELL_MPP, factor)
        planes = _cell_target(rgb, image, target, segmenter)
        pixels = np.rint(shrink(rgb.transpose(2, 0, 1), factor)).astype(np.uint8)
        return pixels, np.rint(shrink(planes, factor) * 255).astype(np.uint8)

    settings = {"task": "cells", "factor": factor, "target": repr(target), "segmenter": repr(segmenter)}
    arrays, digest = _patches(images, read, settings, PATCH_SIZE // factor, cache, seed, 0, progress)
    # Targets add up to about the same area a cell, which is all that sampling needs.
    counts = arrays[1][:, :2].sum((2, 3), dtype=np.float64) / 255
    return TrainingArrays(*arrays, counts, digest=digest)


def load_labeled_tissue(
    images: Sequence[TissueImage], factor: int, cache: Path, seed: int, progress: Progress = SILENT
) -> TrainingArrays:
    """Everything a tissue network is pretrained on."""

    def read(image: TissueImage) -> Labeled:
        rgb = at_scale(image, TISSUE_MPP, factor)
        labels = image.load()
        size = (rgb.shape[1] // factor, rgb.shape[0] // factor)
        scaled = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        classes = np.select([scaled == TISSUE_BACKGROUND, scaled == TISSUE_CANCER], [0, 1], -1)
        return np.rint(shrink(rgb.transpose(2, 0, 1), factor)).astype(np.uint8), classes.astype(np.int8)

    settings = {"task": "tissue", "factor": factor}
    arrays, digest = _patches(images, read, settings, PATCH_SIZE // factor, cache, seed, -1, progress)
    counts = np.stack([(arrays[1] == 0).sum((1, 2)), (arrays[1] == 1).sum((1, 2))], axis=1).astype(float)
    return TrainingArrays(*arrays, counts, digest=digest)


def at_scale(image: LabeledImage, mpp: float, factor: int = 1) -> NDArray[np.uint8]:
    """The image resampled to `mpp`, its sides multiples of `factor`: (H, W, 3) uint8."""
    picture = Image.fromarray(read_rgb(image.image))
    size = [max(1, round(side * image.mpp / mpp / factor)) * factor for side in picture.size]
    return np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BICUBIC))


def masks_of_size(masks: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Instance masks at the nearest pixels of another resolution, (H, W) int32."""
    return np.asarray(Image.fromarray(masks).resize(shape[::-1], Image.Resampling.NEAREST))


def _cell_target(
    rgb: NDArray[np.uint8], image: CellImage, target: TargetConfig, segmenter: NucleusSegmenter
) -> NDArray[np.float32]:
    """Maps of background cells, tumor cells and cells of unknown class, (3, H, W) at 0.2 mpp."""
    cells = image.load()
    shape = (rgb.shape[0], rgb.shape[1])
    points = _scaled_points(cells, shape, image)
    if target.kind == "circle":
        return circle_target(shape, points, target.circle_radius_um, labels=_LABELS)[1:]
    nuclei = segmenter(rgb, points) if cells.nuclei is None else masks_of_size(cells.nuclei, shape)
    if target.kind == "hard":
        return hard_target(nuclei, points, labels=_LABELS)[1:]
    return soft_target(nuclei, points, target.sigma_um, labels=_LABELS)[1:]


def _scaled_points(cells: LabeledCells, shape: tuple[int, int], image: CellImage) -> CellPoints:
    zoom = image.mpp / CELL_MPP
    x, y = (
        np.clip(np.floor(values * zoom), 0, side - 1).astype(np.int32)
        for values, side in ((cells.x, shape[1]), (cells.y, shape[0]))
    )
    label = np.where(cells.label == 0, _UNKNOWN_CELL, cells.label).astype(np.uint8)
    return CellPoints(x, y, label, np.ones(len(x), np.float32))


def _patches(
    images: Sequence[LabeledImage],
    read: Callable[[Any], Labeled],
    settings: dict[str, Any],
    side: int,
    cache: Path,
    seed: int,
    fill: int,
    progress: Progress,
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.integer]], str]:
    """All patches' images and targets, and their digest; `fill` is the target where there is no image."""

    @lru_cache(maxsize=1)
    def made() -> Labeled:
        patches: list[Labeled] = []
        small: list[Labeled] = []
        for image in progress.over(images, "image", "labeled images"):
            for piece in _tiles(read(image), side):
                (patches if piece[0].shape[1:] == (side, side) else small).append(piece)
        patches += _mosaics(small, side, fill, seed)
        pixels, targets = zip(*patches, strict=True)
        return np.stack(pixels), np.stack(targets)

    text = json.dumps([[image.name, image.mpp] for image in images] + [settings, seed])
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    paths = [cache / f"labeled-{what}-{name}.npy" for what in ("images", "targets")]
    files = [path for image in images for path in (image.image, *image.label_files)]
    arrays = tuple(
        derived_array(path, files, {**settings, "seed": seed}, lambda part=part: made()[part])  # type: ignore[misc]
        for part, path in enumerate(paths)
    )
    return cast(tuple[NDArray[np.uint8], NDArray[np.integer]], arrays), arrays_digest(paths)


def _tiles(labeled: Labeled, side: int) -> Iterator[Labeled]:
    """Pieces of at most side × side that cover the image, overlapping where they must."""
    pixels, target = labeled
    corners = [_corners(length, side) for length in pixels.shape[1:]]
    for top in corners[0]:
        for left in corners[1]:
            window = (..., slice(top, top + side), slice(left, left + side))
            yield pixels[window], target[window]


def _corners(length: int, side: int) -> list[int]:
    number = -(-length // side)
    return [round(corner) for corner in np.linspace(0, max(length - side, 0), number).tolist()]


def _mosaics(pieces: Sequence[Labeled], side: int, fill: int, seed: int) -> list[Labeled]:
    """Patches of side × side, laid out in rows of pieces in random order; every piece is in one.

    What is left of a row, and below the last one, is white and has the target `fill`.
    """
    mosaics: list[Labeled] = []
    queue = list(np.random.default_rng([seed, len(pieces)]).permutation(len(pieces)))
    while queue:
        pixels = np.full((3, side, side), 255, np.uint8)
        target = np.full((*pieces[0][1].shape[:-2], side, side), fill, pieces[0][1].dtype)
        top = 0
        while queue and top < side:
            left = height = 0
            while queue and left < side:
                piece, labels = pieces[queue.pop()]
                rows, columns = min(piece.shape[1], side - top), min(piece.shape[2], side - left)
                window = (..., slice(top, top + rows), slice(left, left + columns))
                pixels[window] = piece[:, :rows, :columns]
                target[window] = labels[..., :rows, :columns]
                left, height = left + columns, max(height, rows)
            top += height
        mosaics.append((pixels, target))
    return mosaics
