"""Where a slide holds tissue: the saturated part of it, seen at 16 µm per pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.slides.slide import Slide

MASK_MPP = 16.0
"""µm per pixel of the mask."""

SMALLEST_SPECK = 16
"""Pixels (0.004 mm²) of the smallest piece of tissue, and of the smallest hole in one; of an image that is
not twice as large, half of its pixels."""

_PALEST, _DARKEST = 10, 30
"""Between these saturations (of 255) the threshold is held: a slide without tissue would have its noise cut
in two, and one without glass its tissue."""

_LONGEST = 1200
"""Pixels that an overview's longer side should have, if the slide is small: its picture is made of it."""
_FINEST = 16
_BLOCK = 2048
"""Side of the blocks in which the slide is read, µm; `Slide.read` cuts them further."""


@dataclass(frozen=True, eq=False)
class Overview:
    """A slide as it is seen from afar.

    Attributes
    ----------
    image : (H, W, 3) uint8
        RGB at `MASK_MPP / detail` µm per pixel, white outside of the slide; sides are multiples of `detail`.
    detail : int
        Pixels of the image a side of a mask pixel.
    """

    image: NDArray[np.uint8]
    detail: int

    @property
    def mpp(self) -> float:
        """µm per pixel."""
        return MASK_MPP / self.detail

    def at_mask(self) -> NDArray[np.uint8]:
        """The image at `MASK_MPP`."""
        height, width = (side // self.detail for side in self.image.shape[:2])
        blocks = self.image.reshape(height, self.detail, width, self.detail, 3)
        means: NDArray[np.uint8] = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
        return means


def read_overview(slide: Slide) -> Overview:
    """Look at the whole slide, block by block.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    columns, rows = slide.size_at(MASK_MPP)
    detail = detail_of(slide)
    width, height = columns * detail, rows * detail
    image = np.empty((height, width, 3), np.uint8)
    mpp = MASK_MPP / detail
    side = max(1, int(_BLOCK / mpp))
    for y in range(0, height, side):
        for x in range(0, width, side):
            w, h = min(side, width - x), min(side, height - y)
            image[y : y + h, x : x + w] = slide.read(x, y, w, h, mpp, approximate=True)
    return Overview(image, detail)


def detail_of(slide: Slide) -> int:
    """`Overview.detail` of a slide: 1 for large ones."""
    return int(min(max(_LONGEST // max(slide.size_at(MASK_MPP)), 1), _FINEST))


def covered_mm2(slide: Slide) -> NDArray[np.float32]:
    """Area of each mask pixel that the slide covers, (H, W) mm²: the last ones reach beyond its border."""
    columns, rows = slide.size_at(MASK_MPP)
    across, down = (
        np.clip(length - np.arange(pixels) * MASK_MPP, 0, MASK_MPP) / 1000
        for length, pixels in ((slide.width_um, columns), (slide.height_um, rows))
    )
    return np.outer(down, across).astype(np.float32)


def tissue_mask(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Otsu's threshold on saturation, small holes and specks removed.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB at `MASK_MPP`; see `Overview.at_mask`.

    Returns
    -------
    (H, W) bool
    """
    from skimage.filters import threshold_otsu

    saturation = _saturation(image)
    is_flat = saturation.min() == saturation.max()
    threshold = int(saturation[0, 0]) if is_flat else int(threshold_otsu(saturation))
    mask = saturation > min(max(threshold, _PALEST), _DARKEST)
    mask = ~_without_small(~mask)
    return _without_small(mask)


def _saturation(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """HSV saturation of 255: how far the least channel lies below the largest."""
    largest, least = image.max(axis=-1), image.min(axis=-1)
    share = (largest - least).astype(np.float32) / np.maximum(largest, 1)
    saturation: NDArray[np.uint8] = np.rint(share * 255).astype(np.uint8)
    return saturation


def _without_small(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove connected pieces (edges or corners touching) smaller than `SMALLEST_SPECK`, or half of all."""
    from scipy import ndimage

    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept: NDArray[np.bool_] = (sizes >= min(SMALLEST_SPECK, max(mask.size // 2, 1)))[pieces]
    return kept
