"""Random changes of a nuclei image and its instance map: geometry in one resampling, then color and focus."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label
from torch import Tensor
from torch.nn import functional

from softctm.networks.ranges import AT_LEAST_ONE, NOT_NEGATIVE, SHARE, Range, check_ranges
from softctm.training.augment import change_color, change_stain, one_thread
from softctm.training.config import AugmentationConfig


@dataclass(frozen=True)
class NucleiAugmentationConfig:
    """Ranges of the random changes; each but flips and turns happens with `probability`."""

    crop: int = 256  # pixels of the full-resolution image
    scale: float = 0.25
    rotation: float = 0.0  # degrees, beside the quarter turns that are always drawn
    elastic_px: float = 0.0  # standard deviation of the displacement of points 64 px apart
    shrink: float = 0.0  # up to this share of the resolution is lost
    brightness: float = 0.2
    contrast: float = 0.2
    stain: float = 0.25
    blur_px: float = 1.0  # largest standard deviation
    noise: float = 0.02  # largest standard deviation, of the range 0 … 1
    zoom_blur: float = 0.0  # largest zoom
    superpixels: float = 0.0  # probability of a crop of superpixels, whatever `probability` says
    probability: float = 0.5

    def __post_init__(self) -> None:
        shares = ("brightness", "contrast", "stain", "superpixels", "probability")
        sizes = ("scale", "elastic_px", "blur_px", "noise", "zoom_blur")
        check_ranges(
            self,
            crop=AT_LEAST_ONE,
            rotation=Range(0, 180),
            shrink=Range(0, 1, without=(1,)),
            **dict.fromkeys(shares, SHARE),
            **dict.fromkeys(sizes, NOT_NEGATIVE),
        )


def augment_nuclei(
    image: NDArray[np.uint8],
    instances: NDArray[np.integer],
    center: tuple[float, float],
    config: NucleiAugmentationConfig,
    rng: np.random.Generator,
    downsampling: int = 1,
) -> tuple[Tensor, NDArray[np.int64]]:
    """Cut a changed crop around a point.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    instances : (H, W) int
        0 is background.
    center : (row, column)
        The crop's center, pixels.
    config : NucleiAugmentationConfig
    rng : numpy Generator
        The only source of randomness.
    downsampling : int
        The result has 1 / downsampling of the image's resolution.

    Returns
    -------
    image : (3, S, S) float32, S = crop / downsampling
        In [0, 1]; mirrored where it lies outside.
    instances : (S, S) int64
        Likewise. The mirror image of a nucleus, where it does not touch it, is a nucleus of its own, whose ID
        is larger by a multiple of the largest one plus 1.
    """
    rows, columns = _positions(center, config, rng, downsampling)
    reach = 2
    top, left = math.floor(rows.min()) - reach, math.floor(columns.min()) - reach
    height, width = math.ceil(rows.max()) + reach + 1 - top, math.ceil(columns.max()) + reach + 1 - left
    r = _mirrored(np.arange(top, top + height), image.shape[0])
    c = _mirrored(np.arange(left, left + width), image.shape[1])
    pixels = torch.from_numpy(image[np.ix_(r, c)]).permute(2, 0, 1).float() / 255
    nuclei = instances[np.ix_(r, c)]
    if len(np.unique(r)) < len(r) or len(np.unique(c)) < len(c):
        nuclei = _each_its_own(nuclei, int(instances.max()) + 1)
    labels = torch.from_numpy(nuclei.astype(np.float32))[None]
    grid = torch.from_numpy(
        np.stack([2 * (columns - left + 0.5) / width - 1, 2 * (rows - top + 0.5) / height - 1], -1)
    ).float()[None]
    with one_thread():
        crop = functional.grid_sample(pixels[None], grid, mode="bilinear", align_corners=False)[0]
        ids = functional.grid_sample(labels[None], grid, mode="nearest", align_corners=False)[0, 0]
        changed = _changed_look(crop, config, rng).contiguous()
    return changed, ids.numpy().astype(np.int64)


def _positions(
    center: tuple[float, float],
    config: NucleiAugmentationConfig,
    rng: np.random.Generator,
    downsampling: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each of the crop's pixels comes from: row and column."""
    side = config.crop // downsampling
    reach = (np.arange(side) - (side - 1) / 2) * downsampling
    down, right = np.meshgrid(reach, reach, indexing="ij")
    if config.elastic_px and rng.random() < config.probability:
        points = config.crop // 64 + 3
        moves = rng.normal(0, config.elastic_px, (2, points, points))
        zoomed = [ndimage.zoom(move, side / (points - 1), order=3) for move in moves]
        down, right = (
            position + move[:side, :side] for position, move in zip((down, right), zoomed, strict=True)
        )
    angle = math.pi / 2 * int(rng.integers(4))
    scale = -1.0 if rng.random() < 0.5 else 1.0  # with the quarter turns: every flip
    if config.rotation and rng.random() < config.probability:
        angle += math.radians(rng.uniform(-config.rotation, config.rotation))
    size = 1.0
    if rng.random() < config.probability:
        size = math.exp(rng.uniform(-1, 1) * math.log1p(config.scale))
    cos, sin = math.cos(angle) * size, math.sin(angle) * size
    right = right * scale
    return center[0] + cos * down - sin * right, center[1] + sin * down + cos * right


def _mirrored(positions: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    period = 2 * size
    folded = positions % period
    return np.where(folded < size, folded, period - 1 - folded)


def _each_its_own(nuclei: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Nuclei, (H, W), whose parts that do not touch get IDs of their own: the same modulo `count`."""
    parts, number = label(nuclei, connectivity=2, return_num=True)
    owner = np.zeros(number + 1, np.int64)
    owner[parts.ravel()] = nuclei.ravel()
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], owner[order])
    rank = np.empty(number + 1, np.int64)
    rank[order] = np.arange(number + 1) - first
    rank[owner == 0] = 0
    result: NDArray[np.int64] = (owner + count * rank)[parts]
    return result


def _changed_look(crop: Tensor, config: NucleiAugmentationConfig, rng: np.random.Generator) -> Tensor:
    """Color, dyes, resolution, focus and noise."""
    p = config.probability
    if rng.random() < p:
        colors = AugmentationConfig(brightness=config.brightness, contrast=config.contrast)
        crop = change_color(crop, colors, rng)
    if config.stain and rng.random() < p:
        crop = change_stain(crop, config.stain, rng)
    if config.superpixels and rng.random() < config.superpixels:
        crop = _superpixels(crop, rng)
    if config.shrink and rng.random() < p:
        side = max(1, round(crop.shape[1] * rng.uniform(1 - config.shrink, 1)))
        small = functional.interpolate(crop[None], size=(side, side), mode="area")
        crop = functional.interpolate(small, size=crop.shape[1:], mode="bilinear", align_corners=False)[0]
    if config.zoom_blur and rng.random() < p:
        crop = _zoom_blur(crop, rng.uniform(1, 1 + config.zoom_blur))
    if config.blur_px and rng.random() < p:
        sigma = rng.uniform(0, config.blur_px)
        crop = torch.from_numpy(ndimage.gaussian_filter(crop.numpy(), (0, sigma, sigma), truncate=2))
    if config.noise and rng.random() < p:
        deviation = rng.uniform(0, config.noise)
        crop = crop + deviation * torch.from_numpy(rng.standard_normal(crop.shape, np.float32))
    return crop.clamp(0, 1)


def _superpixels(crop: Tensor, rng: np.random.Generator) -> Tensor:
    """Each superpixel in its mean color."""
    from skimage.segmentation import slic

    pixels = crop.permute(1, 2, 0).numpy()
    count = int(rng.integers(200, 600))
    labels = slic(pixels, n_segments=count, compactness=10, start_label=0, channel_axis=-1).reshape(-1)
    size = np.bincount(labels)
    colors = np.stack([np.bincount(labels, channel) / size for channel in crop.flatten(1).numpy()])
    return torch.from_numpy(colors[:, labels].reshape(crop.shape).astype(np.float32))


def _zoom_blur(crop: Tensor, largest: float, steps: int = 5) -> Tensor:
    """The mean of crops zoomed in from 1 to `largest`."""
    zoomed = [crop]
    for zoom in np.linspace(1, largest, steps)[1:]:
        side = max(1, round(crop.shape[1] / zoom))
        first = (crop.shape[1] - side) // 2
        inner = crop[None, :, first : first + side, first : first + side]
        zoomed.append(functional.interpolate(inner, crop.shape[1:], mode="bilinear", align_corners=False)[0])
    return torch.stack(zoomed).mean(0)
