"""TIFF and OME-TIFF that OpenSlide does not read, or not whole: in strips, in planes, levels in sub-files."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from softctm.errors import SlideError, one_line
from softctm.slides.pyramid import PRINTER_MPP, WHITE, Level, inside, on_white

_CACHE_BYTES = 64 * 2**20
_LARGEST_PART = 256 * 2**20
"""Bytes of the largest tile or strip that is decoded; a whole slide in one strip would fill the memory."""
_MICROMETERS = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
_TAG_UNITS = {2: 25400.0, 3: 10000.0}  # inch, centimeter


class TiffPyramid:
    """A `Pyramid` read by tifffile, tile by tile or strip by strip; may be read from several threads."""

    origin = (0, 0)

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = tifffile.TiffFile(path)
            if not self._file.series:
                raise ValueError("it holds no image: it was cut off, or its copying was")
            series = self._file.series[0]
            self._pages = [_first_page(level) for level in series.levels]
        except Exception as error:
            raise SlideError(f"{path}: cannot be opened ({one_line(error)}); check the file") from error
        self.format = "ome-tiff" if self._file.is_ome else "tiff"
        first = self._pages[0]
        try:
            if first.is_tiled and first.description.startswith("Aperio"):
                raise SlideError(
                    f"{path}: is an Aperio slide that OpenSlide does not know as one: it is damaged, or its "
                    "end is missing; copy it again"
                )
            for page in self._pages:
                self._check(page)
            self._check_planes(series, first)
        except SlideError:
            self.close()
            raise
        self.mpp = _ome_mpp(self._file) or _tag_mpp(first)
        width, height = int(first.imagewidth), int(first.imagelength)
        self.levels = tuple(_level(width, height, int(p.imagewidth), int(p.imagelength)) for p in self._pages)
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._cached = 0

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """See `Pyramid.read`."""
        page = self._pages[level]
        samples = int(page.samplesperpixel)
        window = np.full((height, width, samples), WHITE, np.uint8)
        part_w, part_h = _part_size(page)
        across, down = math.ceil(page.imagewidth / part_w), math.ceil(page.imagelength / part_h)
        (x0, x1), (y0, y1) = inside(x, width, page.imagewidth), inside(y, height, page.imagelength)
        if x0 == x1 or y0 == y1:
            return window[..., :3]
        planes = samples if int(page.planarconfig) == 2 else 1
        for plane in range(planes):
            channels = slice(plane, plane + 1) if planes > 1 else slice(None)
            for row in range(y0 // part_h, (y1 - 1) // part_h + 1):
                for column in range(x0 // part_w, (x1 - 1) // part_w + 1):
                    part = self._part(level, (plane * down + row) * across + column)
                    left, top = column * part_w, row * part_h
                    xs, xe = max(x0, left), min(x1, left + part.shape[1])
                    ys, ye = max(y0, top), min(y1, top + part.shape[0])
                    window[ys - y : ye - y, xs - x : xe - x, channels] = part[
                        ys - top : ye - top, xs - left : xe - left
                    ]
        return on_white(window) if samples == 4 else window

    def close(self) -> None:
        """See `Pyramid.close`."""
        self._file.close()

    def _part(self, level: int, index: int) -> NDArray[np.uint8]:
        """A decoded tile or strip, (h, w, samples) uint8."""
        with self._lock:
            if (level, index) in self._cache:
                self._cache.move_to_end((level, index))
                return self._cache[level, index]
            page = self._pages[level]
            try:
                handle = self._file.filehandle
                handle.seek(page.dataoffsets[index])
                length = page.databytecounts[index]
                data = handle.read(length) if length else None  # sparse files leave tiles out
                if data is not None and len(data) < length:
                    raise ValueError("it ends too early")
            except Exception as error:
                raise self._unreadable(index, error) from error
        try:
            tables = page.jpegtables
            decoded = page.decode(data, index, jpegtables=tables)[0]
        except Exception as error:
            raise self._unreadable(index, error) from error
        part_w, part_h = _part_size(page)
        if decoded is None:
            part = np.full((part_h, part_w, 1), WHITE, np.uint8)
        else:
            part = np.asarray(decoded[0], np.uint8)
        with self._lock:
            if (level, index) not in self._cache:  # another thread may have decoded it meanwhile
                self._cache[level, index] = part
                self._cached += part.nbytes
            while self._cached > _CACHE_BYTES and len(self._cache) > 1:
                self._cached -= self._cache.popitem(last=False)[1].nbytes
        return part

    def _unreadable(self, index: int, error: Exception) -> SlideError:
        return SlideError(
            f"{self._path}: tile or strip {index} cannot be read ({one_line(error)}); the file is damaged "
            "there, or its compression needs imagecodecs"
        )

    def _check(self, page: Any) -> None:
        samples, bits = int(page.samplesperpixel), page.bitspersample
        is_rgb = int(page.photometric) in (2, 6) and samples in (3, 4)
        if page.dtype != np.uint8 or not is_rgb:
            raise SlideError(
                f"{self._path}: holds {samples} channels of {bits} bits, not 8-bit RGB; convert it to that"
            )
        part_w, part_h = _part_size(page)
        if part_w * part_h * samples > _LARGEST_PART:
            raise SlideError(
                f"{self._path}: is stored in strips of {part_w} × {part_h} pixels, too large to read in "
                "parts; convert it to a tiled TIFF"
            )

    def _check_planes(self, series: Any, page: Any) -> None:
        pixels = int(page.imagewidth) * int(page.imagelength) * int(page.samplesperpixel)
        if math.prod(series.shape) != pixels:
            raise SlideError(f"{self._path}: holds several images or channels apart ({series.axes}), not RGB")


def _first_page(level: Any) -> Any:
    page = level.pages[0]
    return page.aspage() if isinstance(page, tifffile.TiffFrame) else page


def _part_size(page: Any) -> tuple[int, int]:
    """Width and height of a page's tiles or strips, pixels."""
    if page.is_tiled:
        return int(page.tilewidth), int(page.tilelength)
    return int(page.imagewidth), int(min(page.rowsperstrip, page.imagelength))


def _level(width: int, height: int, w: int, h: int) -> Level:
    """A level's geometry: writers drop, or fill up, the pixels that are left over at the end."""
    downsample = max(round(width / w), 1)
    exact = all(
        reduced in (full // downsample, -(-full // downsample)) for full, reduced in ((width, w), (height, h))
    )
    return Level(w, h, float(downsample) if exact else (width / w + height / h) / 2, exact)


def _ome_mpp(file: tifffile.TiffFile) -> tuple[float, float] | None:
    if not file.ome_metadata:
        return None
    try:
        root = ElementTree.fromstring(file.ome_metadata)
        pixels = next(element for element in root.iter() if element.tag.endswith("}Pixels"))
        sizes = [
            float(pixels.attrib[f"PhysicalSize{axis}"])
            * _MICROMETERS[pixels.attrib.get(f"PhysicalSize{axis}Unit", "µm")]
            for axis in "XY"
        ]
    except (ElementTree.ParseError, StopIteration, KeyError, ValueError):
        return None
    return sizes[0], sizes[1]


def _tag_mpp(page: Any) -> tuple[float, float] | None:
    unit = page.tags.valueof("ResolutionUnit", default=2)
    values = [page.tags.valueof(name) for name in ("XResolution", "YResolution")]
    if int(unit) not in _TAG_UNITS or None in values:
        return None
    sizes = []
    for count, over in values:
        if not count or not over:
            return None
        sizes.append(_TAG_UNITS[int(unit)] * over / count)
    return (sizes[0], sizes[1]) if max(sizes) < PRINTER_MPP else None
