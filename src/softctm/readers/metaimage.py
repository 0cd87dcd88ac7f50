"""MetaImage files (.mha): one patch, or patches one under the other, read a patch at a time.

SimpleITK reads the pixels, one patch (an extract region) at a time. Two things stay ours, for reasons that
were measured (SimpleITK 2.5.7, a stack of 130 patches, 2 cores):

- The pixels of a compressed file are unpacked once, into the temporary folder, as far as they are asked for.
  SimpleITK unpacks from the start for every region: patch by patch it took thirty times as long as this, in
  slabs of 16 patches seven times (`pytest -m slow -s test/readers/test_stacks.py -k unpacking` times all).
- The header is checked before SimpleITK sees it. It may claim any size and name other files, and a damaged
  one can end the whole process with a corrupted heap instead of an error.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from softctm.errors import InputError, one_line
from softctm.pair import PATCH_SIZE
from softctm.readers.pixels import rgb_of_array
from softctm.readers.simpleitk import path_for_simpleitk, simpleitk

_MAX_HEADER_BYTES = 1 << 16
_CHUNK = 1 << 20
_BYTES_PER_VALUE = {"MET_UCHAR": 1, "MET_USHORT": 2}


class MetaImage:
    """A `.mha` image of 1024 columns, read a patch of 1024 rows at a time.

    Parameters
    ----------
    path : Path
        The file; it is opened for each read and not kept open.
    label : str
        The file as messages call it.

    Attributes
    ----------
    rows : int
        Height of the image, pixels; the slices of a volume count as patches one under the other.

    Raises
    ------
    InputError
        If the header is damaged, names another file, or describes pixels without a plain meaning.
    """

    def __init__(self, path: Path, label: str) -> None:
        self.path, self.label = path, label
        fields, self._data_start = self._header()
        try:
            self._shape = [int(value) for value in fields["DimSize"].split()]
            dimensions, self._channels = int(fields["NDims"]), int(fields.get("ElementNumberOfChannels", "1"))
            value_bytes = _BYTES_PER_VALUE.get(fields["ElementType"].removesuffix("_ARRAY"))
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{label}: is not a readable MetaImage ({one_line(error)}); export it again"
            ) from error
        if value_bytes is None:
            raise InputError(f"{label}: pixels of type {fields['ElementType'][:40]}; save it as 8-bit RGB")
        if dimensions != len(self._shape) or dimensions not in (2, 3) or min(self._shape) < 1:
            raise InputError(f"{label}: its DimSize and NDims do not describe an image; export it again")
        if self._channels not in (1, 2, 3, 4):
            raise InputError(
                f"{label}: {self._channels} channels have no plain meaning; save it as 8-bit RGB"
            )
        slices = self._shape[2] if dimensions == 3 else 1
        if self._shape[0] != PATCH_SIZE:
            raise InputError(
                f"{label}: is {self._shape[0]} × {self._shape[1]} pixels; it must be {PATCH_SIZE} wide"
            )
        if slices > 1 and (self._channels == 1 or self._shape[1] != PATCH_SIZE):
            raise InputError(
                f"{label}: is a volume whose slices are not RGB patches of {PATCH_SIZE} × {PATCH_SIZE}; "
                "put the patches one under the other"
            )
        self.rows = self._shape[1] * slices
        self._patch_bytes = PATCH_SIZE * PATCH_SIZE * self._channels * value_bytes
        self._unpacked: _Unpacked | None = None
        if fields.get("CompressedData", "False").lower() == "true":
            order = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
            header = {
                "NDims": fields["NDims"],
                "DimSize": fields["DimSize"],
                "BinaryDataByteOrderMSB": order,
                "ElementNumberOfChannels": str(self._channels),
                "ElementType": fields["ElementType"],
            }
            self._unpacked = _Unpacked(path, self._data_start, header, self._total_bytes(value_bytes))
        elif self._data_start + self._total_bytes(value_bytes) > path.stat().st_size:
            raise InputError(f"{label}: is cut off: pixels are missing at its end; copy it again")

    def _total_bytes(self, value_bytes: int) -> int:
        return self.rows * PATCH_SIZE * self._channels * value_bytes

    def _header(self) -> tuple[dict[str, str], int]:
        """The header's fields and the offset of the pixels behind it."""
        with self.path.open("rb") as file:
            start = file.read(_MAX_HEADER_BYTES)
        fields: dict[str, str] = {}
        place = 0
        while "ElementDataFile" not in fields:
            end = start.find(b"\n", place)
            key, equals, value = start[place : max(end, place)].partition(b"=")
            if end < 0 or not equals:
                raise InputError(f"{self.label}: has no readable MetaImage header; export it again")
            fields[key.decode("latin-1").strip()] = value.decode("latin-1").strip()
            place = end + 1
        if fields["ElementDataFile"] != "LOCAL":
            raise InputError(f"{self.label}: its pixels lie in another file; save both as one .mha")
        if fields.get("BinaryData", "True").lower() != "true" or fields.get("HeaderSize", "0") != "0":
            raise InputError(f"{self.label}: its pixels are not plain binary data; export it again")
        return fields, place

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read patch `index`: rows 1024 · index … 1024 · index + 1023.

        Returns
        -------
        (1024, 1024, 3) uint8

        Raises
        ------
        InputError
            If the pixels are damaged, cannot be unpacked, or have no plain meaning as RGB, or the path is not
            UTF-8.
        """
        sitk, path = simpleitk(), self.path
        try:
            if self._unpacked is not None:
                path = self._unpacked.up_to((index + 1) * self._patch_bytes)
            reader = sitk.ImageFileReader()
            reader.SetImageIO("MetaImageIO")
            reader.SetFileName(path_for_simpleitk(path, self.label))
            if len(self._shape) == 2 or self._shape[2] == 1:
                first = [0, index * PATCH_SIZE, 0][: len(self._shape)]
            else:
                first = [0, 0, index]
            reader.SetExtractIndex(first)
            reader.SetExtractSize([PATCH_SIZE, PATCH_SIZE, 0][: len(self._shape)])
            pixels = sitk.GetArrayFromImage(reader.Execute())
        except zlib.error as error:
            raise InputError(
                f"{self.label}: its compressed pixels are damaged ({one_line(error)}); copy it again"
            ) from error
        except OSError as error:
            raise InputError(
                f"{self.label}: cannot be unpacked into {tempfile.gettempdir()} ({error.strerror}); "
                "set TMPDIR to a folder with room for it"
            ) from error
        except RuntimeError as error:  # what SimpleITK raises
            raise InputError(f"{self.label}: its pixels cannot be read; export it again") from error
        return rgb_of_array(pixels.reshape(PATCH_SIZE, PATCH_SIZE, self._channels), self.label)


class _Unpacked:
    """An uncompressed copy of a compressed MetaImage in the temporary folder, growing as it is asked for."""

    def __init__(self, source: Path, data_start: int, header: dict[str, str], size: int) -> None:
        self._source, self._start, self._header, self._size = source, data_start, header, size
        self._copy: IO[bytes] | None = None
        self._begin()

    def _begin(self) -> None:
        if self._copy is not None:
            self._copy.close()
        self._copy, self._position, self._done = None, self._start, 0
        self._inflate, self._pending = zlib.decompressobj(), b""

    def up_to(self, size: int) -> Path:
        """Unpack until `size` bytes of pixels are there; return the copy's path."""
        try:
            return self._unpack(size)
        except BaseException:
            self._begin()  # a write that failed halfway would leave what follows in the wrong place
            raise

    def _unpack(self, size: int) -> Path:
        if self._copy is None:
            fields = {"ObjectType": "Image", **self._header, "BinaryData": "True", "CompressedData": "False"}
            text = "".join(f"{key} = {value}\n" for key, value in fields.items())
            # Deleted when this object goes, at the latest.
            self._copy = tempfile.NamedTemporaryFile(prefix="softctm-", suffix=".mha")  # noqa: SIM115
            self._copy.write(text.encode() + b"ElementDataFile = LOCAL\n")
            # Sparse up to its full size, which SimpleITK compares with the header.
            self._copy.truncate(self._copy.tell() + self._size)
        with self._source.open("rb") as file:
            file.seek(self._position)
            while self._done < size:
                coded = self._pending or file.read(_CHUNK)
                plain = self._inflate.decompress(coded, min(_CHUNK, size - self._done))
                self._pending = self._inflate.unconsumed_tail
                if not plain and (self._inflate.eof or not coded):
                    raise zlib.error("the data end too early")
                self._copy.write(plain)
                self._done += len(plain)
            self._position = file.tell()
        self._copy.flush()
        return Path(self._copy.name)
