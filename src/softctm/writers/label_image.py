"""The instance map as a label image: an OME-TIFF in tiles, compressed, with smaller copies for viewers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.writers.image_pyramid import ReadTile, write_pyramid

LABEL_FILE = "instances.tif"
"""Its name in a folder of results."""


def write_label_image(path: Path, instances: NDArray[np.integer], *, mpp: float | None = None) -> None:
    """Write an instance map, tile by tile.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    instances : (H, W) integer
        0 background, else a nucleus. May be a memory map: a tile at a time is read. Stored as uint32.
    mpp : float, optional
        µm per pixel, for the metadata.

    Raises
    ------
    OutputError
        If it cannot be written.
    """

    def read(x: int, y: int, width: int, height: int) -> NDArray[np.uint32]:
        return instances[None, y : y + height, x : x + width].astype(np.uint32)

    write_label_pyramid(path, read, instances.shape[1], instances.shape[0], mpp=mpp)


def write_label_pyramid(
    path: Path, read: ReadTile, width: int, height: int, *, mpp: float | None = None
) -> None:
    """Write an instance map of which only windows are at hand.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    read : callable
        Gives a tile, (1, h, w) uint32.
    width, height : int
        Of the map.
    mpp : float, optional
        µm per pixel, for the metadata.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_pyramid(path, read, width, height, dtype=np.uint32, halve=_every_second, mpp=mpp)


def _every_second(part: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Labels are not numbers to be averaged: every second pixel of every second row."""
    return part[:, ::2, ::2]
