"""`tissue.tif`: the tissue map of a slide as a pyramidal, tiled OME-TIFF, a channel a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.writers.image_pyramid import ReadTile, write_pyramid


def write_tissue_pyramid(
    path: Path, read: ReadTile, width: int, height: int, classes: Sequence[str], mpp: float
) -> None:
    """Write the map tile by tile; a level holds the means of 2 × 2 pixels of the one before.

    Parameters
    ----------
    path : Path
    read : callable
        Gives a tile of the map, (C, h, w) uint8.
    width, height : int
        Of the map.
    classes : sequence of str
        Names of the channels.
    mpp : float
        µm per pixel of the map.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_pyramid(path, read, width, height, dtype=np.uint8, halve=_means, channels=classes, mpp=mpp)


def _means(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 × 2 pixels; an odd last row or column counts twice."""
    height, width = part.shape[1:]
    even = np.pad(part, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge").astype(np.uint16)
    total = even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    means: NDArray[np.uint8] = ((total + 2) // 4).astype(np.uint8)
    return means
