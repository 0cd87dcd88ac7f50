"""The instance map as a label image: an OME-TIFF in tiles, compressed, with smaller copies for viewers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.storage.files import AtomicFile, output_errors

_TILE = 512


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
    import tifffile

    # Labels are not numbers to be averaged: a smaller copy takes every second pixel of every second row.
    levels = [instances]
    while max(levels[-1].shape) > _TILE:
        levels.append(levels[-1][::2, ::2])
    size = {} if mpp is None else {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
    with (
        AtomicFile(path) as file,
        output_errors(path),
        tifffile.TiffWriter(file, bigtiff=instances.size * 4 > 2**31, ome=True) as tiff,
    ):
        for number, level in enumerate(levels):
            tiff.write(
                _tiles(level),
                shape=level.shape,
                dtype=np.uint32,
                tile=(_TILE, _TILE),
                compression="zlib",
                photometric="minisblack",
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=int(number > 0),
                metadata={"axes": "YX", **size} if number == 0 else None,
            )


def _tiles(level: NDArray[np.integer]) -> Iterator[NDArray[np.uint32]]:
    """In row-major order, those at the right and bottom filled up with 0."""
    height, width = level.shape
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            part = level[top : top + _TILE, left : left + _TILE]
            tile = np.zeros((_TILE, _TILE), np.uint32)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
