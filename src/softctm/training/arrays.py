"""The whole training set as arrays at the network's resolution, built once and kept on disk.

Arrays are memory-mapped: several processes share them, and a resumed run opens them at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from tqdm import tqdm

from softctm.datasets.ocelot import TISSUE_BACKGROUND, TISSUE_CANCER, AnnotatedPair
from softctm.errors import InputError
from softctm.pair import PATCH_SIZE, WINDOW_SIZE, ZOOM
from softctm.training.config import TargetConfig
from softctm.training.segmenters import NucleusSegmenter
from softctm.training.targets import circle_target, hard_target, soft_target


@dataclass(frozen=True)
class TrainingArrays:
    """Patches of one task as they are stored for it, S = 1024 / `TaskConfig.stored_downsampling`.

    Attributes
    ----------
    images : (N, 3, S, S) uint8
        RGB.
    targets : (N, 2, S, S) uint8 or (N, S, S) int8
        Cells: background and tumor cell maps × 255. Tissue: 0 background, 1 cancer area, −1 unknown.
    counts : (N, 2) float64
        Cells, or pixels, of each class, for sampling.
    context : (N, K, S, S) float16 or None
        Tissue probabilities seen by cell networks.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.integer]
    counts: NDArray[np.float64]
    context: NDArray[np.float16] | None = None

    def sample(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One patch as `augment` takes it: float image (with context) and target."""
        image = torch.from_numpy(np.array(self.images[index])).float() / 255
        if self.context is not None:
            image = torch.cat([image, torch.from_numpy(np.array(self.context[index])).float()])
        target = torch.from_numpy(np.array(self.targets[index]))
        if target.ndim == 2:
            return image, target.long()
        cells = target.float() / 255
        return image, torch.cat([1 - cells.sum(0, keepdim=True), cells])


def cached(path: Path, build: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Memory-map `path`, building it first where it is absent; a half-written file is never seen."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(f".{os.getpid()}.npy")
        np.save(partial_path, build())
        partial_path.rename(path)
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def key(pairs: Sequence[AnnotatedPair], *settings: object) -> str:
    """A short name for what an array was made from."""
    text = json.dumps([[pair.id for pair in pairs], [repr(setting) for setting in settings]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """One patch of the release, (1024, 1024, 3) uint8."""
    try:
        image = np.asarray(Image.open(path).convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path}: cannot be read as an image ({error})") from None
    if image.shape != (PATCH_SIZE, PATCH_SIZE, 3):
        raise InputError(
            f"{path}: must be {PATCH_SIZE} × {PATCH_SIZE} pixels, not {image.shape[1]} × {image.shape[0]}"
        )
    return image


def shrink(planes: NDArray[np.generic], factor: int) -> NDArray[np.float32]:
    """Mean over factor × factor blocks of (C, H, W): what the network's own pooling computes."""
    channels, height, width = planes.shape
    blocks = planes.reshape(channels, height // factor, factor, width // factor, factor)
    means: NDArray[np.float32] = blocks.mean((2, 4), dtype=np.float32)
    return means


def load_images(pairs: Sequence[AnnotatedPair], kind: str, factor: int, cache: Path) -> NDArray[np.uint8]:
    """Cell or tissue patches, (N, 3, S, S) uint8."""
    paths = [pair.cell_image if kind == "cell" else pair.tissue_image for pair in pairs]

    def build() -> NDArray[np.uint8]:
        return np.stack(
            [
                np.rint(shrink(read_rgb(path).transpose(2, 0, 1), factor)).astype(np.uint8)
                for path in _shown(paths, kind)
            ]
        )

    return cached(cache / f"{kind}-images-{key(pairs, factor)}.npy", build)


def load_tissue(pairs: Sequence[AnnotatedPair], factor: int, cache: Path) -> TrainingArrays:
    """Everything a tissue network is trained on; labels keep the nearest pixel's."""

    def build() -> NDArray[np.int8]:
        labels = np.stack(
            [pair.tissue_labels()[factor // 2 :: factor, factor // 2 :: factor] for pair in pairs]
        )
        return np.select([labels == TISSUE_BACKGROUND, labels == TISSUE_CANCER], [0, 1], -1).astype(np.int8)

    targets = cached(cache / f"tissue-labels-{key(pairs, factor)}.npy", build)
    counts = np.stack([(targets == 0).sum((1, 2)), (targets == 1).sum((1, 2))], axis=1).astype(float)
    return TrainingArrays(load_images(pairs, "tissue", factor, cache), targets, counts)


def load_cells(
    pairs: Sequence[AnnotatedPair],
    factor: int,
    target: TargetConfig,
    segmenter: NucleusSegmenter,
    context: NDArray[np.float16] | None,
    cache: Path,
    processes: int = 2,
) -> TrainingArrays:
    """Everything a cell network is trained on."""

    def build() -> NDArray[np.uint8]:
        paint = partial(paint_target, target=target, segmenter=segmenter, factor=factor)
        with ProcessPoolExecutor(processes) as pool:
            return np.stack(list(_shown(pool.map(paint, pairs, chunksize=4), "targets", len(pairs))))

    made_from = (factor, target.kind, target.circle_radius_um, target.sigma_um, segmenter)
    name = f"cell-targets-{key(pairs, *made_from)}.npy"
    labels = [pair.cells().label for pair in pairs]
    counts = np.array([[np.sum(label == 1), np.sum(label == 2)] for label in labels], float)
    images = load_images(pairs, "cell", factor, cache)
    return TrainingArrays(images, cached(cache / name, build), counts, context)


def paint_target(
    pair: AnnotatedPair, target: TargetConfig, segmenter: NucleusSegmenter, factor: int
) -> NDArray[np.uint8]:
    """Both cell channels of one patch's target at working resolution, × 255: (2, S, S) uint8."""
    points = pair.cells()
    if target.kind == "circle":
        planes = circle_target((PATCH_SIZE, PATCH_SIZE), points, target.circle_radius_um)
    else:
        nuclei = segmenter(read_rgb(pair.cell_image), points)
        planes = (
            hard_target(nuclei, points)
            if target.kind == "hard"
            else soft_target(nuclei, points, target.sigma_um)
        )
    return np.rint(shrink(planes[1:], factor) * 255).astype(np.uint8)


def tissue_context(tissue: NDArray[np.floating], x: int, y: int, factor: int) -> NDArray[np.float16]:
    """What a cell network sees of a tissue map: the window, upsampled as the detector does, at working size.

    Parameters
    ----------
    tissue : (K, 1024, 1024)
        Class probabilities over the tissue patch.
    x, y : int
        The window's corner.
    factor : int
        The cell network's downsampling.

    Returns
    -------
    (K, S, S) float16
    """
    window = torch.from_numpy(np.array(tissue[:, y : y + WINDOW_SIZE, x : x + WINDOW_SIZE])).float()[None]
    full = functional.interpolate(window, scale_factor=ZOOM, mode="bicubic", align_corners=False)
    return functional.avg_pool2d(full, factor)[0].numpy().astype(np.float16)


def _shown(items: Iterable[Any], what: str, total: int | None = None) -> Iterable[Any]:
    bar: Iterable[Any] = tqdm(items, desc=what, total=total, unit="patch", disable=None)
    return bar
