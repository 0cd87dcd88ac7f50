"""Bits a channel of PNG and JPEG files, from their headers: Pillow keeps 8 of 16 bits without a word."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softctm.errors import InputError
from softctm.readers.pixels import oriented, rgb_of_array
from softctm.readers.simpleitk import path_for_simpleitk, simpleitk

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_DEPTH_IN_PNG, _COLOR_IN_PNG = 24, 25
_GRAY_WITH_ALPHA = 4
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG's start-of-frame markers; the three between them are tables."""

_ORIENTATION = 274


def bits_a_channel(path: Path) -> int:
    """Bits a channel of a PNG or JPEG file; 8 for files of another kind or without a readable header."""
    with path.open("rb") as file:
        start = file.read(_DEPTH_IN_PNG + 1)
        if start.startswith(_PNG) and len(start) > _DEPTH_IN_PNG:
            return start[_DEPTH_IN_PNG]
        if start.startswith(_JPEG):
            file.seek(len(_JPEG))
            return _jpeg_precision(file)
    return 8


def _jpeg_precision(file: IO[bytes]) -> int:
    """Precision in the first frame header, found by going from segment to segment."""
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        if head[1] == 0xFF:  # a fill byte before the marker
            file.seek(-3, 1)
        elif head[1] in _FRAMES:
            return (file.read(1) or b"\x08")[0]
        else:
            file.seek(max(0, int.from_bytes(head[2:], "big") - 2), 1)
    return 8


def read_deep_png(path: Path, image: Image.Image, label: str) -> NDArray[np.uint8]:
    """Read a PNG of 16 bits a channel.

    Parameters
    ----------
    path : Path
    image : PIL.Image.Image
        The same file, opened by Pillow for its header; its size has been checked against the contract.
    label : str
        The file as messages call it.

    Returns
    -------
    (rows, columns, 3) uint8

    Raises
    ------
    InputError
        If it is transparent, its values do not use their upper bits (see `rgb_of_array`), or its path is not
        UTF-8.
    """
    if "transparency" in image.info:
        raise InputError(f"{label}: is partly transparent: what lies behind? Save it as RGB without alpha")
    with path.open("rb") as file:
        color = file.read(_COLOR_IN_PNG + 1)[_COLOR_IN_PNG]
    if color == _GRAY_WITH_ALPHA:  # SimpleITK reads the others only
        raise InputError(f"{label}: gray of 16 bits with an alpha channel is not read; save it as 8-bit RGB")
    name, sitk = path_for_simpleitk(path, label), simpleitk()
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(name, imageIO="PNGImageIO"))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return oriented(rgb_of_array(pixels, label), image.getexif().get(_ORIENTATION, 1))
