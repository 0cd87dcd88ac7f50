"""`tissue.tif`: the tissue map of a slide as a pyramidal, tiled OME-TIFF, a channel a class."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from softctm import __version__
from softctm.storage.files import AtomicFile, output_errors

TILE = 512
_SMALLEST = 512
"""Levels are added until both sides are at most this long."""

ReadTile = Callable[[int, int, int, int], NDArray[np.uint8]]
"""(x, y, width, height) → (C, height, width) uint8."""

_UUID = "00000000-0000-0000-0000-000000000000"
"""OME wants one; a random one would make every run's file another."""


def write_tissue_pyramid(
    path: Path, read: ReadTile, width: int, height: int, classes: Sequence[str], mpp: float
) -> None:
    """Write the map tile by tile; a level holds the means of 2 × 2 pixels of the one before.

    Only tiles are in memory, and those of the next level, compressed.

    Parameters
    ----------
    path : Path
    read : callable
        Gives a tile of the map.
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
    sizes = [(width, height)]
    while max(sizes[-1]) > _SMALLEST:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    metadata = {
        "axes": "CYX",
        "UUID": _UUID,
        "Channel": {"Name": list(classes)},
        "PhysicalSizeX": mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp,
        "PhysicalSizeYUnit": "µm",
    }
    with (
        AtomicFile(path) as file,
        output_errors(path),
        tifffile.TiffWriter(file, ome=True, bigtiff=True) as writer,
    ):
        for index, (w, h) in enumerate(sizes):
            level = _Level(read, w, h, len(classes))
            resolution = 1e4 / (mpp * 2**index)
            options = {"subifds": len(sizes) - 1, "metadata": metadata} if index == 0 else {"subfiletype": 1}
            writer.write(
                level.tiles(),
                shape=(len(classes), h, w),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="minisblack",
                compression="zlib",
                resolution=(resolution, resolution),
                resolutionunit="CENTIMETER",
                software=f"SoftCTM {__version__}",
                **options,
            )
            read = level.half


class _Level:
    """One level as it is written, which keeps its tiles, halved and compressed, for the next."""

    def __init__(self, read: ReadTile, width: int, height: int, classes: int) -> None:
        self._read, self._width, self._height, self._classes = read, width, height, classes
        self._halves: dict[tuple[int, int], bytes] = {}

    def tiles(self) -> Iterator[NDArray[np.uint8]]:
        """All tiles of the first class, then of the next, filled up with zeros at the border."""
        for channel in range(self._classes):
            for top in range(0, self._height, TILE):
                for left in range(0, self._width, TILE):
                    size = (min(TILE, self._width - left), min(TILE, self._height - top))
                    part = self._read(left, top, *size)
                    if channel == 0:
                        self._halves[left, top] = zlib.compress(_halved(part).tobytes(), level=1)
                    tile = np.zeros((TILE, TILE), np.uint8)
                    tile[: size[1], : size[0]] = part[channel]
                    yield tile

    def half(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """A tile of the next level."""
        tile = np.empty((self._classes, height, width), np.uint8)
        for top in range(0, height, TILE // 2):
            for left in range(0, width, TILE // 2):
                w, h = min(TILE // 2, width - left), min(TILE // 2, height - top)
                stored = zlib.decompress(self._halves[2 * (x + left), 2 * (y + top)])
                tile[:, top : top + h, left : left + w] = np.frombuffer(stored, np.uint8).reshape(
                    self._classes, h, w
                )
        return tile


def _halved(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 × 2 pixels; an odd last row or column counts twice."""
    height, width = part.shape[1:]
    even = np.pad(part, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge").astype(np.uint16)
    total = even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    means: NDArray[np.uint8] = ((total + 2) // 4).astype(np.uint8)
    return means
