"""Slides that OpenSlide reads: SVS, NDPI, MRXS, SCN, BIF, DICOM, Philips, and tiled TIFF."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.errors import SlideError, one_line
from softctm.extras import broken, missing
from softctm.slides.pyramid import PRINTER_MPP, WHITE, Level, inside, on_white

_BOUNDS = ("x", "y", "width", "height")

_CACHE_BYTES = 64 * 2**20
"""Decoded tiles that are kept: those between two neighboring windows."""


def is_known(path: Path) -> bool:
    """Whether OpenSlide takes the file for one of its formats."""
    return _openslide().OpenSlide.detect_format(str(path)) is not None


class OpenSlidePyramid:
    """A `Pyramid` read by OpenSlide; may be read from several threads at once.

    Where a file says which part of its plane was scanned (MRXS, SCN, some BIF), that part is the slide, as
    it is in QuPath. Its corner in OpenSlide's own plane is `origin`.
    """

    def __init__(self, path: Path) -> None:
        library = _openslide()
        self._path = path
        try:
            self._slide = library.OpenSlide(str(path))
        except (library.OpenSlideError, OSError) as error:
            raise SlideError(f"{path}: cannot be opened ({one_line(error)}); check the file") from error
        self._slide.set_cache(library.OpenSlideCache(_CACHE_BYTES))
        self.format = str(self._slide.properties.get("openslide.vendor", "unknown"))
        self.mpp = _mpp(self._slide.properties)
        plane = self._slide.dimensions
        self.origin, size = _scanned(self._slide.properties, plane)
        self.levels = tuple(
            self._level(reduced, downsample, size, plane)
            for reduced, downsample in zip(
                self._slide.level_dimensions, self._slide.level_downsamples, strict=True
            )
        )

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """See `Pyramid.read`."""
        size = self.levels[level]
        (x0, x1), (y0, y1) = inside(x, width, size.width), inside(y, height, size.height)
        if (x1 - x0, y1 - y0) == (width, height):
            return self._read_inside(level, x, y, width, height)
        window = np.full((height, width, 3), WHITE, np.uint8)
        if x0 < x1 and y0 < y1:
            window[y0 - y : y1 - y, x0 - x : x1 - x] = self._read_inside(level, x0, y0, x1 - x0, y1 - y0)
        return window

    def _read_inside(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        downsample = self.levels[level].downsample
        place = round(x * downsample), round(y * downsample)
        corner = self.origin[0] + place[0], self.origin[1] + place[1]
        try:
            image = self._slide.read_region(corner, level, (width, height))
        except Exception as error:  # OpenSlide's, and ctypes' where the file vanished
            raise SlideError(
                f"{self._path}: cannot be read at level-0 pixel ({place[0]}, {place[1]}) "
                f"({one_line(error)}); the file is damaged there or gone"
            ) from error
        if image.getchannel("A").getextrema()[0] == WHITE:
            return np.asarray(image.convert("RGB"))  # much faster than through the alpha channel
        return on_white(np.asarray(image))

    def _level(
        self, reduced: tuple[int, int], downsample: float, size: tuple[int, int], plane: tuple[int, int]
    ) -> Level:
        """A level of what was scanned, `size` of the `plane`; `reduced` is that of the whole plane."""
        width, height = (_reduced(*axis, downsample) for axis in zip(size, plane, reduced, strict=True))
        axes = zip(self.origin, plane, reduced, strict=True)
        return Level(width, height, downsample, all(_is_exact(*axis, downsample) for axis in axes))

    def property(self, name: str) -> str | None:
        """One of OpenSlide's properties."""
        value = self._slide.properties.get(name)
        return None if value is None else str(value)

    def close(self) -> None:
        """See `Pyramid.close`."""
        self._slide.close()


def _openslide() -> Any:
    try:
        import openslide
    except ModuleNotFoundError as error:
        raise missing("openslide") from error
    except (ImportError, OSError) as error:
        raise broken("openslide", one_line(error)) from error
    return openslide


def _scanned(properties: Any, plane: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Corner and size of what was scanned, level-0 pixels; the whole plane where the file does not say."""
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{name}"]) for name in _BOUNDS)
    except (KeyError, ValueError):
        return (0, 0), plane
    (left, right), (top, bottom) = inside(x, width, plane[0]), inside(y, height, plane[1])
    if left == right or top == bottom:
        return (0, 0), plane
    return (left, top), (right - left, bottom - top)


def _reduced(size: int, plane: int, reduced: int, downsample: float) -> int:
    """Pixels of a level along one axis, of what was scanned."""
    return reduced if size == plane else min(reduced, math.ceil(size / downsample - 1e-6))


def _is_exact(origin: int, plane: int, reduced: int, downsample: float) -> bool:
    """Whether a level's pixels lie on whole ones of level 0, so that OpenSlide does not interpolate."""
    step = round(downsample)
    return step == downsample and reduced * step == plane and origin % step == 0


def _mpp(properties: Any) -> tuple[float, float] | None:
    try:
        mpp = float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])
    except (KeyError, ValueError):
        return None
    return mpp if max(mpp) < PRINTER_MPP else None
