"""Image files of either stream: a folder of patches by stem, or one stack of patches."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from softctm.errors import InputError, one_line
from softctm.pair import PATCH_SIZE
from softctm.readers.headers import bits_a_channel, read_deep_png
from softctm.readers.metaimage import MetaImage
from softctm.readers.pixels import rgb_of_image
from softctm.readers.tiff import TiffImage

STACK_SUFFIXES = (".tif", ".tiff", ".mha")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", *STACK_SUFFIXES)

MAX_PATCHES = 10_000
"""Most patches that one stack may claim to hold; the challenge's largest has 137."""


class RowImage(Protocol):
    """An image of 1024 columns that is read 1024 rows at a time."""

    rows: int

    def read(self, index: int) -> NDArray[np.uint8]:
        """Patch `index` as (1024, 1024, 3) uint8."""


def open_rows(path: Path, label: str) -> RowImage:
    """Open a `.tif`, `.tiff` or `.mha` file for reading by rows.

    Raises
    ------
    InputError
        If it is empty, damaged, or of another kind.
    """
    if _size(path, label) == 0:
        raise InputError(f"{label}: is empty (0 bytes); copy it again")
    try:
        if path.suffix.lower() == ".mha":
            return MetaImage(path, label)
        return TiffImage(path, label)
    except OSError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror}); check its permissions") from error


def patches_in(image: RowImage, label: str) -> int:
    """How many patches a stack holds.

    Raises
    ------
    InputError
        If its height is not a multiple of 1024, or absurd.
    """
    if image.rows % PATCH_SIZE:
        raise InputError(
            f"{label}: its height, {image.rows}, is not a multiple of {PATCH_SIZE}; stack whole patches"
        )
    count = image.rows // PATCH_SIZE
    if count > MAX_PATCHES:
        raise InputError(f"{label}: claims {count} patches, more than {MAX_PATCHES}; split it")
    return count


def read_patch(path: Path, label: str) -> NDArray[np.uint8]:
    """Read one image file that holds one patch.

    Returns
    -------
    (1024, 1024, 3) uint8

    Raises
    ------
    InputError
        If it is empty, damaged, of another kind or of another size.
    """
    if path.suffix.lower() in STACK_SUFFIXES:
        rows = open_rows(path, label)
        if rows.rows > PATCH_SIZE and rows.rows % PATCH_SIZE == 0:
            raise InputError(
                f"{label}: is a stack of {rows.rows // PATCH_SIZE} patches; a stack must be the only image "
                f"of its folder, and a patch {PATCH_SIZE} × {PATCH_SIZE} pixels"
            )
        _require_size(PATCH_SIZE, rows.rows, label)
        return rows.read(0)
    return decoded(
        path,
        label,
        lambda width, height: _require_size(width, height, label),
        lambda image: TiffImage(path, label).read(0),
        f"far larger than {PATCH_SIZE} × {PATCH_SIZE} pixels",
    )


def decoded(
    path: Path,
    label: str,
    check_size: Callable[[int, int], None],
    read_tiff: Callable[[Image.Image], NDArray[np.uint8]],
    too_large: str,
) -> NDArray[np.uint8]:
    """Decode an image file by the rules that hold for all of them.

    Parameters
    ----------
    path : Path
    label : str
        The file as messages call it.
    check_size : callable
        Given width and height of the header; raises InputError before pixels are decoded.
    read_tiff : callable
        Reads a TIFF, given as Pillow opened it.
    too_large : str
        What an image is that Pillow takes for an attack.

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    InputError
        If it is empty, damaged or of another kind.
    """
    if _size(path, label) == 0:
        raise InputError(f"{label}: is empty (0 bytes); copy it again")
    try:
        bits = bits_a_channel(path)
        if bits not in (1, 2, 4, 8, 16):
            raise InputError(f"{label}: has {bits} bits a channel, which are not read; save it with 8 bits")
        with _without_advice(), Image.open(path, formats=("JPEG", "PNG", "TIFF", "BMP")) as image:
            # Only the header is read so far: pixels are decoded when their number is known to be right.
            check_size(*image.size)
            if image.format == "TIFF":
                return read_tiff(image)
            # Of a camera's JPEG with further pictures (previews, the other eye) the first is the picture.
            if image.format == "PNG" and getattr(image, "is_animated", False):
                raise InputError(f"{label}: is an animation; save one image")
            if bits == 16:
                return read_deep_png(path, image, label)
            return rgb_of_image(image, label)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"{label}: is not a JPEG, PNG, TIFF or BMP image, or is damaged; replace it"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{label}: is {too_large}") from error
    except PermissionError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror}); check its permissions") from error
    except Exception as error:  # Pillow raises whatever damaged data lead to
        raise InputError(
            f"{label}: cannot be decoded ({one_line(error)}); copy or export it again"
        ) from error


def list_images(folder: Path, label: str) -> tuple[dict[str, list[Path]], list[str]]:
    """Image files of a folder by stem, and the names of other files, which are passed over.

    Stems are in Unicode's composed form (NFC): some systems store é as e and an accent (NFD), and the two
    look alike. Files whose name begins with a dot belong to the system and are not mentioned.

    Raises
    ------
    InputError
        If the folder is missing or cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{label}: the folder is missing; put the images there")
    images: dict[str, list[Path]] = {}
    others = []
    try:
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.suffix.lower() in SUFFIXES and not path.is_dir():
                images.setdefault(unicodedata.normalize("NFC", path.stem), []).append(path)
            else:
                others.append(path.name)
    except OSError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror}); check its permissions") from error
    return images, others


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep from stderr what Pillow warns of: images half as large as those that it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _size(path: Path, label: str) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror}); check it") from error


def _require_size(width: int, height: int, label: str) -> None:
    if (width, height) != (PATCH_SIZE, PATCH_SIZE):
        raise InputError(
            f"{label}: is {width} × {height} pixels; a patch must be {PATCH_SIZE} × {PATCH_SIZE}"
        )
