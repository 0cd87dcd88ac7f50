"""Slides to measure on, made of real patches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from softctm.pair import CELL_MPP, PATCH_SIZE
from softctm.readers import open_pairs

TILE = 512
GLASS = 243


def mosaic(data: Path, side: int, mpp: float, subset: str = "train") -> NDArray[np.uint8]:
    """Cell patches of a release side by side, resampled to `mpp`, (side, side, 3) uint8."""
    pairs = open_pairs(data, subset)
    step = round(PATCH_SIZE * CELL_MPP / mpp)
    image = np.full((side, side, 3), GLASS, np.uint8)
    for place in range((-(-side // step)) ** 2):
        row, column = divmod(place, -(-side // step))
        patch = Image.fromarray(pairs.read(place % len(pairs)).cell).resize((step, step))
        part = np.asarray(patch)[: side - row * step, : side - column * step]
        image[row * step : row * step + len(part), column * step : column * step + part.shape[1]] = part
    return image


def pair_as_slide(tissue: NDArray[np.uint8], cell: NDArray[np.uint8], x: int, y: int) -> NDArray[np.uint8]:
    """A tissue patch enlarged by four with its cell patch at its place, (4096, 4096, 3) uint8 at 0.2 µm.

    `x`, `y` is the corner of the cell patch's window, pixels of the tissue patch.
    """
    size = (4 * PATCH_SIZE, 4 * PATCH_SIZE)
    image = np.array(Image.fromarray(tissue).resize(size, Image.Resampling.BICUBIC))
    image[4 * y : 4 * y + PATCH_SIZE, 4 * x : 4 * x + PATCH_SIZE] = cell
    return image


def write_slide(path: Path, image: NDArray[np.uint8], mpp: float, **options: Any) -> Path:
    """A pyramidal, tiled TIFF with levels of a fourth and a sixteenth; JPEG of quality 90."""
    chosen: dict[str, Any] = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "jpeg"}
    chosen |= {"compressionargs": {"level": 90}} | options
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for factor in (1, 4, 16):
            level = image if factor == 1 else reduced(image, factor)
            resolution = 1e4 / (mpp * factor)
            writer.write(
                level,
                subfiletype=int(factor > 1),
                metadata=None,
                resolution=(resolution, resolution),
                resolutionunit="CENTIMETER",
                **chosen,
            )
    return path


def reduced(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Means of factor × factor pixels."""
    height, width = (side // factor for side in image.shape[:2])
    cut = image[: height * factor, : width * factor]
    means = cut.reshape(height, factor, width, factor, 3).mean(axis=(1, 3), dtype=np.float32)
    smaller: NDArray[np.uint8] = np.rint(means).astype(np.uint8)
    return smaller


def with_white(image: NDArray[np.uint8], left: int, top: int) -> NDArray[np.uint8]:
    """The image with white added on its left and above."""
    return np.pad(image, ((top, 0), (left, 0), (0, 0)), constant_values=255)


def write_glass_slide(
    path: Path, width: int, height: int, tissue: NDArray[np.uint8], at: tuple[int, int]
) -> Path:
    """A slide of glass with one piece of tissue, written tile by tile: any size in little memory."""

    def tiles(factor: int) -> Iterator[NDArray[np.uint8]]:
        piece = tissue if factor == 1 else reduced(tissue, factor)
        left, top = at[0] // factor, at[1] // factor
        for y in range(0, height // factor, TILE):
            for x in range(0, width // factor, TILE):
                tile = np.full((TILE, TILE, 3), GLASS, np.uint8)
                x0, y0 = max(left - x, 0), max(top - y, 0)
                part = piece[max(y - top, 0) :, max(x - left, 0) :][: TILE - y0, : TILE - x0]
                if x0 < TILE and y0 < TILE and part.size:
                    tile[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
                yield tile

    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for factor in (1, 4, 16):
            resolution = 1e4 / (0.25 * factor)
            writer.write(
                tiles(factor),
                shape=(height // factor, width // factor, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                subfiletype=int(factor > 1),
                metadata=None,
                resolution=(resolution, resolution),
                resolutionunit="CENTIMETER",
            )
    return path
