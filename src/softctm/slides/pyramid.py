"""What a file format gives: the same picture at several resolutions, read pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

WHITE = 255

PRINTER_MPP = 20.0
"""µm per pixel beyond which a TIFF's resolution is meant for a printer: 72 dots an inch are 353."""


@dataclass(frozen=True)
class Level:
    """One resolution of a slide.

    Attributes
    ----------
    width, height : int
        Pixels.
    downsample : float
        Level-0 pixels that one pixel of this level covers along each axis.
    exact : bool
        Whether its pixels lie exactly on level-0's: pixel i covers [i · downsample, (i + 1) · downsample).
        Others can be off by a pixel and are good for looking at only.
    """

    width: int
    height: int
    downsample: float
    exact: bool


class Pyramid(Protocol):
    """A slide as its file format holds it.

    Attributes
    ----------
    levels : tuple of Level
        The finest first.
    mpp : (float, float) or None
        µm per level-0 pixel, x and y, where the file says so.
    format : str
        What the file is, for messages and records.
    origin : (int, int)
        Where in the file's own plane level-0 pixel (0, 0) lies.
    """

    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    format: str
    origin: tuple[int, int]

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """A window of a level.

        Parameters
        ----------
        level : int
        x, y, width, height : int
            In that level's pixels; the window may leave the level.

        Returns
        -------
        (height, width, 3) uint8
            RGB; white outside and where the file is transparent.

        Raises
        ------
        SlideError
            If the file cannot be read there.
        """

    def close(self) -> None:
        """Close the file."""


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of an image (H, W, 4) uint8 with straight alpha, laid on white."""
    alpha = rgba[..., 3:]
    if alpha.min(initial=WHITE) == WHITE:
        return np.ascontiguousarray(rgba[..., :3])
    opaque = alpha.astype(np.float32) / WHITE
    mixed = rgba[..., :3] * opaque + WHITE * (1 - opaque)
    return np.rint(mixed).astype(np.uint8)


def inside(start: int, length: int, limit: int) -> tuple[int, int]:
    """The part [start, stop) of a window that lies in 0 … limit; empty where none does."""
    first = min(max(start, 0), limit)
    return first, max(first, min(start + length, limit))
