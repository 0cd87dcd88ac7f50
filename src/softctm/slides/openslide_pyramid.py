"""Slides that OpenSlide reads: SVS, NDPI, MRXS, SCN, BIF, DICOM, Philips, and tiled TIFF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.errors import SlideError, one_line
from softctm.extras import broken, missing
from softctm.slides.pyramid import PRINTER_MPP, WHITE, Level, inside, on_white

_CACHE_BYTES = 64 * 2**20
"""Decoded tiles that are kept: those between two neighboring windows."""


def is_known(path: Path) -> bool:
    """Whether OpenSlide takes the file for one of its formats."""
    return _openslide().OpenSlide.detect_format(str(path)) is not None


class OpenSlidePyramid:
    """A `Pyramid` read by OpenSlide; may be read from several threads at once."""

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
        width, height = self._slide.dimensions
        self.levels = tuple(
            Level(w, h, downsample, _is_exact(width, w, downsample) and _is_exact(height, h, downsample))
            for (w, h), downsample in zip(
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
        corner = (round(x * downsample), round(y * downsample))
        try:
            image = self._slide.read_region(corner, level, (width, height))
        except Exception as error:  # OpenSlide's, and ctypes' where the file vanished
            raise SlideError(
                f"{self._path}: cannot be read at level-0 pixel ({corner[0]}, {corner[1]}) "
                f"({one_line(error)}); the file is damaged there or gone"
            ) from error
        if image.getchannel("A").getextrema()[0] == WHITE:
            return np.asarray(image.convert("RGB"))  # much faster than through the alpha channel
        return on_white(np.asarray(image))

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


def _is_exact(full: int, reduced: int, downsample: float) -> bool:
    """Whether a level's side divides the slide's, so that OpenSlide reads it without interpolating."""
    return reduced * round(downsample) == full and downsample == round(downsample)


def _mpp(properties: Any) -> tuple[float, float] | None:
    try:
        mpp = float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])
    except (KeyError, ValueError):
        return None
    return mpp if max(mpp) < PRINTER_MPP else None
