"""Random crops, scale, flips, quarter turns, brightness, contrast and stain strength."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor
from torch.nn import functional

from softctm.training.config import AugmentationConfig


def augment(
    image: Tensor,
    target: Tensor,
    config: AugmentationConfig,
    crop: int,
    rng: np.random.Generator,
    reduction: int = 1,
) -> tuple[Tensor, Tensor]:
    """Cut one random crop out of a patch and change it at random.

    Parameters
    ----------
    image : (3 + K, H, W) float32
        RGB in [0, 1], then K context channels, which take part in the geometry only.
    target : (C, H, W) float32 or (H, W) int64
        Soft targets (resampled bilinearly) or labels (nearest neighbor).
    config : AugmentationConfig
        Ranges and probability; `config.crop` is in full-resolution pixels, `crop` here in the network's.
    crop : int
        Side of the result, pixels.
    rng : numpy Generator
        The only source of randomness.
    reduction : int
        Pixels of the image to one of the result, where neither scale nor magnification changes.

    Returns
    -------
    image, target
        Same channels and types, (…, crop, crop).
    """
    height, width = image.shape[-2:]
    side = random_side(config, crop * reduction, min(height, width), rng)
    top, left = (int(rng.integers(0, length - side + 1)) for length in (height, width))
    image, target = (cut(planes, top, left, side, crop) for planes in (image, target))
    orientation = Orientation.random(config, rng)
    image, target = orientation(image), orientation(target)
    image = torch.cat([recolored(image[:3], config, rng), image[3:]])
    return image.contiguous(), target.contiguous()


def random_side(config: AugmentationConfig, usual: int, largest: int, rng: np.random.Generator) -> int:
    """Side of what a crop shows, pixels: `usual` where neither scale nor magnification changes."""
    seen = float(usual)
    if config.magnified > 1:
        seen /= np.exp(rng.uniform(0, np.log(config.magnified)))
    if rng.random() < config.probability:
        seen /= rng.uniform(1 - config.scale, 1 + config.scale)
    return min(round(seen), largest)


def cut(planes: Tensor, top: int, left: int, side: int, crop: int) -> Tensor:
    """The square of `side` pixels from (top, left) on, resampled to `crop` pixels per side.

    Maps (C, H, W) float32 are resampled bilinearly, labels (H, W) int64 by nearest neighbor.
    """
    planes = planes[..., top : top + side, left : left + side]
    if side == crop:
        return planes
    with one_thread():
        return _resized(planes, crop)


@dataclass(frozen=True)
class Orientation:
    """Quarter turns counter-clockwise, then flips left-right and upside down."""

    turns: int
    flips: tuple[bool, bool]

    @classmethod
    def random(cls, config: AugmentationConfig, rng: np.random.Generator) -> Orientation:
        """Each of its parts happens with the probability of `config`."""
        turns = int(rng.integers(0, 4)) if rng.random() < config.probability else 0
        return cls(turns, (rng.random() < config.probability, rng.random() < config.probability))

    def __call__(self, planes: Tensor) -> Tensor:
        """The planes (…, H, W) so oriented."""
        planes = torch.rot90(planes, self.turns, (-2, -1))
        axes = [axis for axis, is_flipped in zip((-1, -2), self.flips, strict=True) if is_flipped]
        return planes.flip(axes)


def recolored(rgb: Tensor, config: AugmentationConfig, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast and stains changed at random; (3, H, W) in [0, 1]."""
    if rng.random() < config.probability:
        rgb = change_color(rgb, config, rng)
    if config.stain and rng.random() < config.probability:
        rgb = change_stain(rgb, config.stain, rng)
    return rgb


def _resized(planes: Tensor, side: int) -> Tensor:
    """Maps (C, H, W) float32 bilinearly, labels (H, W) int64 by nearest neighbor, to side × side."""
    if planes.dtype.is_floating_point:
        size = (side, side)
        return functional.interpolate(planes[None], size=size, mode="bilinear", align_corners=False)[0]
    labels = planes[None, None].float()
    return functional.interpolate(labels, size=(side, side), mode="nearest-exact")[0, 0].long()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """For interpolations, whose last bits depend on the number of threads, and so on the process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def change_color(rgb: Tensor, config: AugmentationConfig, rng: np.random.Generator) -> Tensor:
    """Scale each channel's brightness and its contrast about the channel's mean; (3, H, W) in [0, 1]."""
    brightness = torch.tensor(rng.uniform(1 - config.brightness, 1 + config.brightness, (3, 1, 1))).float()
    contrast = torch.tensor(rng.uniform(1 - config.contrast, 1 + config.contrast, (3, 1, 1))).float()
    # Not PyTorch's mean, whose last bits depend on the number of threads, and so on the process.
    mean = torch.from_numpy(rgb.numpy().mean((1, 2), dtype=np.float64, keepdims=True)).float()
    return ((rgb - mean) * contrast + mean * brightness).clamp(0, 1)


def change_stain(rgb: Tensor, stain: float, rng: np.random.Generator) -> Tensor:
    """Make each dye stronger or weaker by up to the share `stain`; (3, H, W) in [0, 1].

    The dyes are hematoxylin, eosin and what is left, by color deconvolution (Ruifrok & Johnston 2001):
    optical densities add up, each dye's in its own direction of red, green and blue.
    """
    strength = rng.uniform(1 - stain, 1 + stain, 3)
    changed = (hed_from_rgb @ np.diag(strength) @ rgb_from_hed).astype(np.float32)
    # In NumPy and sum by sum: the last bits of PyTorch's depend on the number of threads.
    density = -np.log(np.maximum(rgb.numpy(), np.float32(1 / 255)))
    mixed = density[0] * changed[0, :, None, None]
    for channel in (1, 2):
        mixed = mixed + density[channel] * changed[channel, :, None, None]
    return torch.from_numpy(np.exp(-mixed).clip(0, 1))
