"""Where the cell patch lies in the tissue patch, and maps carried from the one to the other.

A window is (B, 4): left, top, width and height as shares of the tissue patch, so that it holds at every
resolution. Maps are sampled bilinearly, so that a window may begin between two pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from softctm.pair import ZOOM

_TINY = 1e-6


def window_of(plane: Tensor) -> Tensor:
    """The window that a plane shows: 1 in it, 0 elsewhere, the share that it covers in pixels on its border.

    Parameters
    ----------
    plane : (B, 1, H, W) float32
        In the tissue patch's pixels.

    Returns
    -------
    (B, 4) float32
    """
    plane = plane.float()
    left, width = _extent(plane.mean((1, 2)))
    top, height = _extent(plane.mean((1, 3)))
    return torch.stack([left, top, width, height], 1)


def _extent(profile: Tensor) -> tuple[Tensor, Tensor]:
    """Start and length, as shares, of the bar in each row of (B, N)."""
    number = profile.shape[1]
    total, highest = profile.sum(1).clamp(min=_TINY), profile.amax(1).clamp(min=_TINY)
    centers = (torch.arange(number, device=profile.device) + 0.5) / number
    length = total / highest / number
    return (profile * centers).sum(1) / total - length / 2, length


def window_plane(window: Sequence[float], side: int) -> Tensor:
    """The plane (1, side, side) float32 that shows a window: left, top, width and height as shares."""
    left, top, width, height = (share * side for share in window)
    x, y = _covered(left, width, side), _covered(top, height, side)
    return (y[:, None] * x)[None]


def _covered(start: float, length: float, side: int) -> Tensor:
    """How much of each of `side` pixels lies in the bar from `start` on, (side,) float32."""
    pixel = torch.arange(side, dtype=torch.float64)
    covered = (pixel + 1).clamp(max=start + length) - pixel.clamp(min=start)
    return covered.clamp(min=0).float()


def tissue_to_cells(tissue: Tensor, window: Tensor, size: tuple[int, int]) -> Tensor:
    """The window of a map over the tissue patch, as a map over the cell patch.

    Parameters
    ----------
    tissue : (B, C, h, w)
    window : (B, 4)
    size : (int, int)
        Rows and columns of the result.

    Returns
    -------
    (B, C, *size)
        Of the same type.
    """
    y, x = (_centers(length, tissue.device) for length in size)
    left, top, width, height = (part[:, None] for part in window.unbind(1))
    return _sampled(tissue, left + width * x, top + height * y, "border")


def cells_to_tissue(cells: Tensor, window: Tensor, size: tuple[int, int]) -> Tensor:
    """A map over the cell patch, averaged down and put into its window of the tissue patch; 0 around it.

    Parameters as of `tissue_to_cells`.
    """
    rows, columns = cells.shape[-2:]
    # Zeros make the sides divisible; the patch is then a part of what is averaged.
    missing = (0, -columns % ZOOM, 0, -rows % ZOOM)
    smaller = functional.avg_pool2d(functional.pad(cells, missing), ZOOM)
    across = columns / (columns + missing[1])
    down = rows / (rows + missing[3])
    y, x = (_centers(length, cells.device) for length in size)
    left, top, width, height = (part[:, None] for part in window.clamp(min=_TINY).unbind(1))
    return _sampled(smaller, (x - left) / width * across, (y - top) / height * down, "zeros")


def _centers(number: int, device: torch.device) -> Tensor:
    return (torch.arange(number, device=device) + 0.5) / number


def _sampled(maps: Tensor, x: Tensor, y: Tensor, beyond: str) -> Tensor:
    """Maps (B, C, h, w) at columns x (B, W) and rows y (B, H), shares of them: (B, C, H, W)."""
    (batch, columns), rows = x.shape, y.shape[1]
    places = torch.stack(
        [x[:, None].expand(batch, rows, columns), y[:, :, None].expand(batch, rows, columns)], 3
    )
    # In 32 bits: 16 cannot tell neighboring places.
    sampled = functional.grid_sample(maps.float(), 2 * places - 1, padding_mode=beyond, align_corners=False)
    return sampled.to(maps.dtype)
