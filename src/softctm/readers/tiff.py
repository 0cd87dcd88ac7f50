"""One TIFF with patches one under the other, decoded a patch at a time.

Strips or tiles that hold a patch's rows are copied, still compressed, into a small TIFF in memory, which
Pillow decompresses. So memory does not grow with the stack. Gray and RGB samples of 8 or 16 bits are
presented to Pillow as one gray image, for as RGB it would keep 8 of 16 bits without a word; what they mean
(planes, differences, white is zero, alpha) is done here.
"""

from __future__ import annotations

import io
import logging
import struct
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from softctm.errors import InputError, one_line
from softctm.pair import PATCH_SIZE
from softctm.readers.pixels import oriented, rgb_of_image
from softctm.readers.tiff_format import (
    BLACK_IS_ZERO,
    UNCOMPRESSED,
    Samples,
    check_whole,
    format_of,
    holds_several,
    meaning,
)

MAX_ROWS_AT_ONCE = 8 * PATCH_SIZE
"""Most rows that may have to be decoded for one patch; taller strips would defeat reading patch by patch."""

_Entry = tuple[int, int, int, bytes]
_MAX_TAG_BYTES = 1 << 20
_MAX_CODED_BYTES = 2 * MAX_ROWS_AT_ONCE * PATCH_SIZE * 8

# A tag's value copied as it is: bits, compression, photometry, fill order, samples, planes, predictor,
# palette, extra samples, sample format, JPEG tables, YCbCr coefficients, subsampling, positioning, range.
_COPIED_TAGS = (258, 259, 262, 266, 277, 284, 317, 320, 338, 339, 347, 529, 530, 531, 532)

# Otherwise tifffile's remarks on odd tags would end up on stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class TiffImage:
    """A TIFF of 1024 columns, read a patch of 1024 rows at a time.

    Parameters
    ----------
    path : Path
        The file; it is opened for each read and not kept open.
    label : str
        The file as messages call it.

    Attributes
    ----------
    rows : int
        Height of the image, pixels.

    Raises
    ------
    InputError
        If it is no TIFF, holds several images, is not 1024 pixels wide, or its strips are too tall.
    """

    def __init__(self, path: Path, label: str) -> None:
        self.path, self.label = path, label
        try:
            with tifffile.TiffFile(path) as tiff:
                self._parse(tiff)
        except (InputError, FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # tifffile raises whatever a damaged header leads to
            raise InputError(
                f"{label}: is not a readable TIFF image ({one_line(error)}); copy or export it again"
            ) from error

    def _parse(self, tiff: tifffile.TiffFile) -> None:
        if holds_several(tiff):
            raise InputError(
                f"{self.label}: holds more than one image; put the patches one under the other in one"
            )
        page = tiff.pages.first
        self.rows, self.columns = int(page.imagelength), int(page.imagewidth)
        if self.columns != PATCH_SIZE or self.rows < 1:
            raise InputError(
                f"{self.label}: is {self.columns} × {self.rows} pixels; it must be {PATCH_SIZE} wide"
            )
        if int(page.imagedepth) != 1:
            raise InputError(f"{self.label}: is a volume; put the patches one under the other in one plane")
        self._orientation = int(page.tags.valueof(274, default=1))
        if self._orientation != 1 and self.rows != PATCH_SIZE:
            raise InputError(f"{self.label}: a stack with an orientation tag is turned how? Save it upright")
        self._byteorder = tiff.byteorder
        self._format = format_of(page, self.label)
        self._planes = self._format.planes
        self._tile = (int(page.tilelength), int(page.tilewidth)) if page.is_tiled else None
        self._segment_rows = self._tile[0] if self._tile else min(int(page.rowsperstrip), self.rows)
        self._across = -(-self.columns // max(1, self._tile[1])) if self._tile else 1
        self._offsets, self._counts = list(page.dataoffsets), list(page.databytecounts)
        self._tags = [_copied(tiff, page.tags[code]) for code in _COPIED_TAGS if code in page.tags]
        self._check_segments(tiff.filehandle.size)
        if self._segment_rows > PATCH_SIZE and not self._tile and self._format.compression == UNCOMPRESSED:
            samples = self._format.samples // self._planes
            self._split_into_rows((self.columns * samples * self._format.bits + 7) // 8)
        columns = max(PATCH_SIZE, self._tile[1]) if self._tile else PATCH_SIZE
        if self._segment_rows * columns > MAX_ROWS_AT_ONCE * PATCH_SIZE:
            raise InputError(
                f"{self.label}: is compressed in strips or tiles of {self._segment_rows} rows, too many to "
                f"read it patch by patch; save it with at most {PATCH_SIZE} rows a strip"
            )

    def _check_segments(self, file_size: int) -> None:
        """The header must agree with itself and with the file's size before anything is allocated from it."""
        if self._segment_rows < 1 or (self._tile and self._tile[1] < 1):
            raise InputError(f"{self.label}: its strips or tiles have no extent; export it again")
        expected = -(-self.rows // self._segment_rows) * self._across * self._planes
        if len(self._offsets) != expected or len(self._counts) != expected:
            raise InputError(
                f"{self.label}: claims {self.rows} rows but lists {len(self._offsets)} of {expected} strips "
                "or tiles; it is damaged, copy it again"
            )
        check_whole(self._offsets, self._counts, self.label)
        if any(o < 8 or c < 1 or o + c > file_size for o, c in zip(self._offsets, self._counts, strict=True)):
            raise InputError(f"{self.label}: is cut off: pixels are missing; copy it again")

    def _split_into_rows(self, row_bytes: int) -> None:
        """Treat each row of tall uncompressed strips as a strip of its own."""
        rows: list[int] = []
        strips = len(self._offsets) // self._planes
        for index, (offset, count) in enumerate(zip(self._offsets, self._counts, strict=True)):
            height = min(self._segment_rows, self.rows - index % strips * self._segment_rows)
            if count < height * row_bytes:
                raise InputError(f"{self.label}: a strip is too short for its rows; copy it again")
            rows.extend(range(offset, offset + height * row_bytes, row_bytes))
        self._offsets, self._counts, self._segment_rows = rows, [row_bytes] * len(rows), 1

    def read(self, index: int) -> NDArray[np.uint8]:
        """Decode rows 1024 · index … 1024 · index + 1023.

        Returns
        -------
        (1024, 1024, 3) uint8

        Raises
        ------
        InputError
            If the pixels cannot be decoded or have no plain meaning as RGB.
        """
        first = index * PATCH_SIZE // self._segment_rows
        stop = -(-min((index + 1) * PATCH_SIZE, self.rows) // self._segment_rows)
        try:
            if self._format.is_direct:
                samples = np.concatenate(
                    [self._plane(first, stop, plane) for plane in range(self._planes)], axis=2
                )
                pixels = oriented(meaning(samples, self._format, self.label), self._orientation)
            else:
                with Image.open(self._small_tiff(first, stop, 0), formats=("TIFF",)) as image:
                    pixels = rgb_of_image(image, self.label)
        except InputError:
            raise
        except Exception as error:  # Pillow raises whatever damaged data lead to
            raise InputError(
                f"{self.label}: its pixels cannot be decoded ({one_line(error)}); copy or export it again"
            ) from error
        top = index * PATCH_SIZE - first * self._segment_rows
        return np.ascontiguousarray(pixels[top : top + PATCH_SIZE])

    def _plane(self, first: int, stop: int, plane: int) -> Samples:
        """Samples of one plane as they are meant to be stored: (rows, columns, samples) uint8 or uint16."""
        with Image.open(self._small_tiff(first, stop, plane), formats=("TIFF",)) as image:
            stored = np.asarray(image)
        stored = stored.astype(np.uint8 if self._format.bits == 8 else np.uint16, copy=False)
        samples = stored.reshape(len(stored), self.columns, -1)
        if self._format.differences:
            # Each tile begins anew; a strip is as wide as the image.
            width = self._tile[1] if self._tile else self.columns
            blocks = [samples[:, x : x + width] for x in range(0, self.columns, width)]
            samples = np.concatenate(
                [np.cumsum(block, axis=1, dtype=block.dtype) for block in blocks], axis=1, dtype=samples.dtype
            )
        return samples

    def _small_tiff(self, first: int, stop: int, plane: int) -> io.BytesIO:
        """A TIFF with the rows of segments first … stop − 1 only, as compressed as they were."""
        a_plane = plane * (len(self._offsets) // self._planes)
        chosen = range(a_plane + first * self._across, a_plane + stop * self._across)
        if sum(self._counts[i] for i in chosen) > _MAX_CODED_BYTES:
            raise InputError(f"{self.label}: holds far more bytes than its pixels need; export it again")
        body, offsets = io.BytesIO(), []
        body.seek(8)
        with self.path.open("rb") as file:
            for i in chosen:
                file.seek(self._offsets[i])
                offsets.append(body.tell())
                body.write(file.read(self._counts[i]))
        counts = [self._counts[i] for i in chosen]
        rows = min(stop * self._segment_rows, self.rows) - first * self._segment_rows
        entries, stretch = self._tags, 1
        if self._format.is_direct:
            stretch = self._format.samples // self._planes
            described = {258: self._format.bits, 259: self._format.compression, 262: BLACK_IS_ZERO, 277: 1}
            entries = [self._shorts(code, value) for code, value in described.items()]
        elif self.rows == PATCH_SIZE:
            entries = [*entries, self._longs(274, [self._orientation])]
        entries = [*entries, self._longs(256, [self.columns * stretch]), self._longs(257, [rows])]
        if self._tile:
            entries += [self._longs(322, [self._tile[1] * stretch]), self._longs(323, [self._tile[0]])]
            entries += [self._longs(324, offsets), self._longs(325, counts)]
        else:
            entries += [self._longs(278, [self._segment_rows])]
            entries += [self._longs(273, offsets), self._longs(279, counts)]
        self._finish(body, sorted(entries))
        return body

    def _shorts(self, code: int, value: int) -> _Entry:
        """A tag with one 16-bit value."""
        return code, 3, 1, struct.pack(f"{self._byteorder}H", value)

    def _longs(self, code: int, values: list[int]) -> _Entry:
        """A tag with 32-bit values."""
        return code, 4, len(values), struct.pack(f"{self._byteorder}{len(values)}I", *values)

    def _finish(self, body: io.BytesIO, entries: list[_Entry]) -> None:
        """Write values, directory and header around the pixels."""
        order, directory = self._byteorder, b""
        for code, kind, count, value in entries:
            if len(value) > 4:
                place = body.tell()
                body.write(value + b"\0" * (len(value) % 2))
                value = struct.pack(order + "I", place)
            directory += struct.pack(order + "HHI", code, kind, count) + value.ljust(4, b"\0")
        start = body.tell() + body.tell() % 2
        body.seek(start)
        body.write(struct.pack(order + "H", len(entries)) + directory + b"\0" * 4)
        body.seek(0)
        body.write((b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start))
        body.seek(0)


def _copied(tiff: tifffile.TiffFile, tag: tifffile.TiffTag) -> _Entry:
    """A tag's code, type, count and value as they stand in the file."""
    if tag.valuebytecount > _MAX_TAG_BYTES:
        raise ValueError(f"tag {tag.code} is too long")
    tiff.filehandle.seek(tag.valueoffset)
    return int(tag.code), int(tag.dtype), int(tag.count), tiff.filehandle.read(tag.valuebytecount)
