"""The whole training set as arrays at the network's resolution, made once and kept on disk.

Arrays are memory-mapped: several processes share them, and a resumed run opens them at once. They are made
anew when the data change; see `softctm.storage.derived`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from softctm.datasets.ocelot import TISSUE_BACKGROUND, TISSUE_CANCER, AnnotatedPair
from softctm.pair import PATCH_SIZE, WINDOW_SIZE, ZOOM
from softctm.progress import SILENT, Progress
from softctm.storage.derived import content_digest, derived_array
from softctm.training.config import TargetConfig
from softctm.training.feeding import can_share_memory
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
    digest : str
        Of everything above, so that a checkpoint knows what it was trained on.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.integer]
    counts: NDArray[np.float64]
    context: NDArray[np.float16] | None = None
    digest: str = ""

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


def key(pairs: Sequence[AnnotatedPair], *settings: object) -> str:
    """A short name for the pairs and settings that an array is made of."""
    text = json.dumps([[pair.id for pair in pairs], [repr(setting) for setting in settings]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def shrink(planes: NDArray[np.generic], factor: int) -> NDArray[np.float32]:
    """Mean over factor × factor blocks of (C, H, W): what the network's own pooling computes."""
    channels, height, width = planes.shape
    blocks = planes.reshape(channels, height // factor, factor, width // factor, factor)
    means: NDArray[np.float32] = blocks.mean((2, 4), dtype=np.float32)
    return means


def load_images(
    pairs: Sequence[AnnotatedPair],
    kind: Literal["cell", "tissue"],
    path: Path,
    factor: int,
    progress: Progress,
) -> NDArray[np.uint8]:
    """Cell or tissue patches, (N, 3, S, S) uint8, kept at `path`."""

    def build() -> NDArray[np.uint8]:
        patches = (pair.cell_patch() if kind == "cell" else pair.tissue_patch() for pair in pairs)
        shown = progress.over(patches, "patch", f"{kind} patches", len(pairs))
        return np.stack(
            [np.rint(shrink(patch.transpose(2, 0, 1), factor)).astype(np.uint8) for patch in shown]
        )

    files = [pair.cell_image if kind == "cell" else pair.tissue_image for pair in pairs]
    return derived_array(path, files, {"downsampling": factor}, build)


def load_tissue(
    pairs: Sequence[AnnotatedPair], factor: int, cache: Path, progress: Progress = SILENT
) -> TrainingArrays:
    """Everything a tissue network is trained on; labels keep the nearest pixel's."""

    def build() -> NDArray[np.int8]:
        labels = np.stack(
            [pair.tissue_labels()[factor // 2 :: factor, factor // 2 :: factor] for pair in pairs]
        )
        return np.select([labels == TISSUE_BACKGROUND, labels == TISSUE_CANCER], [0, 1], -1).astype(np.int8)

    name = key(pairs, factor)
    paths = [cache / f"tissue-images-{name}.npy", cache / f"tissue-labels-{name}.npy"]
    files = [pair.tissue_png for pair in pairs]
    targets = derived_array(paths[1], files, {"downsampling": factor}, build)
    counts = np.stack([(targets == 0).sum((1, 2)), (targets == 1).sum((1, 2))], axis=1).astype(float)
    images = load_images(pairs, "tissue", paths[0], factor, progress)
    return TrainingArrays(images, targets, counts, digest=arrays_digest(paths))


def load_cells(
    pairs: Sequence[AnnotatedPair],
    factor: int,
    target: TargetConfig,
    segmenter: NucleusSegmenter,
    context: NDArray[np.float16] | None,
    cache: Path,
    processes: int = 2,
    context_made_of: str = "",
    progress: Progress = SILENT,
) -> TrainingArrays:
    """Everything a cell network is trained on.

    Parameters
    ----------
    pairs : sequence of AnnotatedPair
    factor : int
        Downsampling of the arrays.
    target : TargetConfig
    segmenter : NucleusSegmenter
    context : (N, K, S, S) float16 or None
        The tissue probabilities that cell networks see.
    cache : Path
        Folder of the arrays.
    processes : int
        How many render targets at once.
    context_made_of : str
        Identifies the context in the digest: predictions differ in their last bits between machines.
    progress : Progress
    """

    def build() -> NDArray[np.uint8]:
        render = partial(render_target, target=target, segmenter=segmenter, factor=factor)
        if processes == 1 or not can_share_memory():
            return np.stack(list(progress.over(map(render, pairs), "patch", "targets", len(pairs))))
        with ProcessPoolExecutor(processes) as pool:
            rendered = pool.map(render, pairs, chunksize=4)
            return np.stack(list(progress.over(rendered, "patch", "targets", len(pairs))))

    made_of = {
        "downsampling": factor,
        "kind": target.kind,
        "circle_radius_um": target.circle_radius_um,
        "sigma_um": target.sigma_um,
        "segmenter": repr(segmenter),
    }
    paths = [
        cache / f"cell-images-{key(pairs, factor)}.npy",
        cache / f"cell-targets-{key(pairs, *made_of.values())}.npy",
    ]
    files = [path for pair in pairs for path in (pair.cell_csv, pair.cell_image)]
    targets = derived_array(paths[1], files, made_of, build)
    labels = [pair.cells().label for pair in pairs]
    counts = np.array([[np.sum(label == 1), np.sum(label == 2)] for label in labels], float)
    images = load_images(pairs, "cell", paths[0], factor, progress)
    return TrainingArrays(images, targets, counts, context, arrays_digest(paths, context_made_of))


def arrays_digest(paths: Iterable[Path], more: str = "") -> str:
    """Of everything in the arrays at these paths, and of `more`."""
    return hashlib.sha256("".join([*map(content_digest, paths), more]).encode()).hexdigest()


def render_target(
    pair: AnnotatedPair, target: TargetConfig, segmenter: NucleusSegmenter, factor: int
) -> NDArray[np.uint8]:
    """Both cell channels of one patch's target at working resolution, × 255: (2, S, S) uint8."""
    points = pair.cells()
    if target.kind == "circle":
        planes = circle_target((PATCH_SIZE, PATCH_SIZE), points, target.circle_radius_um)
    else:
        nuclei = segmenter(pair.cell_patch(), points)
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
