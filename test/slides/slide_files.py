"""Slides to read in tests: smooth colored noise, written in the formats that scanners and programs write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise (H, W, 3) uint8 with structure at several scales."""
    random = np.random.default_rng(seed)
    noise = sum(
        ndimage.gaussian_filter(random.standard_normal((height, width, 3)), (s, s, 0)) * s
        for s in (0.5, 2, 8)
    )
    return np.rint((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Mean of factor × factor pixels; what is left over at the end is dropped."""
    height, width = (side // factor for side in image.shape[:2])
    cut = image[: height * factor, : width * factor].astype(np.float64)
    means = cut.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
    return np.rint(means).astype(np.uint8)


def write_tiff(path: Path, levels: list[np.ndarray], mpp: float | None = 0.25, **options: object) -> Path:
    """A pyramidal tiled TIFF as OpenSlide's generic format has it."""
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"} | options
    with tifffile.TiffWriter(path) as file:
        for index, level in enumerate(levels):
            scale = round(max(levels[0].shape) / max(level.shape))
            here = {
                k: (tuple(v / scale for v in r) if k == "resolution" else r) for k, r in resolution.items()
            }
            file.write(level, subfiletype=int(index > 0), metadata=None, **options, **here)
    return path


def write_ome(path: Path, levels: list[np.ndarray], mpp: float | None = 0.25, **options: object) -> Path:
    """A pyramidal OME-TIFF: the levels are sub-files of the first image."""
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"} | options
    metadata = {"axes": "YXS"}
    if mpp is not None:
        metadata |= {"PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": mpp * 1000}
        metadata["PhysicalSizeYUnit"] = "nm"
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **options)
    return path


def tissue_picture(height: int, width: int, seed: int = 0, islands: int = 1) -> np.ndarray:
    """Glass with islands of pink tissue, each with a dark core, full of dark spots; (H, W, 3) uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 243, np.float32)
    tissue = np.zeros((height, width), np.bool_)
    for island in range(islands):
        center, half = (island + 0.5) * width / islands, 0.42 * width / islands
        for scale, color in ((1.0, (225, 170, 205)), (0.5, (170, 90, 150))):
            inside = ((y - height / 2) / (0.42 * height * scale)) ** 2 + (
                (x - center) / (half * scale)
            ) ** 2 < 1
            image[inside] = color
            tissue |= inside
    count = height * width // 2500
    rows, columns = random.integers(0, height, count), random.integers(0, width, count)
    spots = np.zeros((height, width), np.float32)
    spots[rows, columns] = tissue[rows, columns]
    spots = ndimage.gaussian_filter(ndimage.maximum_filter(spots, 9), 2)[..., None] * 0.75
    image = image * (1 - spots) + np.array((60, 30, 110), np.float32) * spots
    return np.clip(image + random.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
