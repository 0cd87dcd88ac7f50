"""A map of a slide as a pyramidal, tiled OME-TIFF with its resolution, written from tiles in order."""

from __future__ import annotations

import contextlib
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from softctm import __version__
from softctm.storage.files import AtomicFile, output_errors

TILE = 512
_SMALLEST = 512
"""Levels are added until both sides are at most this long."""

ReadTile = Callable[[int, int, int, int], NDArray[Any]]
"""(x, y, width, height) → (C, height, width)."""

Halve = Callable[[NDArray[Any]], NDArray[Any]]
"""(C, h, w) → the same at half the resolution, sides rounded up."""

_UUID = "00000000-0000-0000-0000-000000000000"
"""OME wants one; a random one would make every run's file another."""


def write_pyramid(
    path: Path,
    read: ReadTile,
    width: int,
    height: int,
    *,
    dtype: type[np.integer],
    halve: Halve,
    channels: Sequence[str] | None = None,
    mpp: float | None = None,
) -> None:
    """Write a map tile by tile; each level is made of the one before.

    Only tiles are in memory; those of the next level wait, compressed, in a temporary file.

    Parameters
    ----------
    path : Path
    read : callable
        Gives a tile of the map. It is asked for all tiles, row by row, once a channel.
    width, height : int
        Of the map.
    dtype : type
        Of its pixels.
    halve : callable
        Makes a level of the one before.
    channels : sequence of str, optional
        Names of the channels; without them there is one, and no axis of channels.
    mpp : float, optional
        µm per pixel, for the metadata.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    sizes = [(width, height)]
    while max(sizes[-1]) > _SMALLEST:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    metadata: dict[str, Any] = {"axes": "YX" if channels is None else "CYX", "UUID": _UUID}
    if channels is not None:
        metadata["Channel"] = {"Name": list(channels)}
    if mpp is not None:
        for axis in "XY":
            metadata |= {f"PhysicalSize{axis}": mpp, f"PhysicalSize{axis}Unit": "µm"}
    with (
        AtomicFile(path) as file,
        output_errors(path),
        contextlib.ExitStack() as stack,
        tifffile.TiffWriter(file, ome=True, bigtiff=True) as writer,
    ):
        for index, (w, h) in enumerate(sizes):
            waiting = stack.enter_context(tempfile.TemporaryFile(dir=path.parent))
            level = _Level(read, w, h, len(channels or " "), np.dtype(dtype), halve, waiting)
            options: dict[str, Any] = {"subfiletype": 1}
            if index == 0:
                options = {"subifds": len(sizes) - 1, "metadata": metadata}
            if mpp is not None:
                resolution = 1e4 / (mpp * 2**index)
                options |= {"resolution": (resolution, resolution), "resolutionunit": "CENTIMETER"}
            writer.write(
                level.tiles(),
                shape=(h, w) if channels is None else (len(channels), h, w),
                dtype=dtype,
                tile=(TILE, TILE),
                photometric="minisblack",
                compression="zlib",
                software=f"SoftCTM {__version__}",
                **options,
            )
            read = level.half


class _Level:
    """One level as it is written, which keeps its tiles, halved and compressed, for the next."""

    def __init__(
        self,
        read: ReadTile,
        width: int,
        height: int,
        channels: int,
        dtype: np.dtype[Any],
        halve: Halve,
        waiting: IO[bytes],
    ) -> None:
        self._read, self._width, self._height, self._channels = read, width, height, channels
        self._dtype, self._halve, self._waiting = dtype, halve, waiting
        self._places: dict[tuple[int, int], tuple[int, int]] = {}  # start and length in the file

    def tiles(self) -> Iterator[NDArray[Any]]:
        """All tiles of the first channel, then of the next, filled up with zeros at the border."""
        for channel in range(self._channels):
            for top in range(0, self._height, TILE):
                for left in range(0, self._width, TILE):
                    size = (min(TILE, self._width - left), min(TILE, self._height - top))
                    part = self._read(left, top, *size)
                    if channel == 0:
                        content = zlib.compress(self._halve(part).tobytes(), level=1)
                        self._places[left, top] = (self._waiting.tell(), len(content))
                        self._waiting.write(content)
                    tile = np.zeros((TILE, TILE), self._dtype)
                    tile[: size[1], : size[0]] = part[channel]
                    yield tile

    def half(self, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """A tile of the next level."""
        tile = np.empty((self._channels, height, width), self._dtype)
        for top in range(0, height, TILE // 2):
            for left in range(0, width, TILE // 2):
                w, h = min(TILE // 2, width - left), min(TILE // 2, height - top)
                start, length = self._places[2 * (x + left), 2 * (y + top)]
                self._waiting.seek(start)
                stored = zlib.decompress(self._waiting.read(length))
                tile[:, top : top + h, left : left + w] = np.frombuffer(stored, self._dtype).reshape(
                    self._channels, h, w
                )
        return tile
