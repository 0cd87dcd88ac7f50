"""Whatever an image file holds, as RGB uint8 where the meaning is plain; refused by name where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from softctm.errors import InputError

_BECOMES_RGB = {"RGB", "RGBX", "CMYK", "YCbCr"}
_BECOMES_GRAY = {"1", "L"}
_HAS_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}


def rgb_of_image(image: Image.Image, label: str) -> NDArray[np.uint8]:
    """Decode a Pillow image: EXIF orientation applied, color modes converted.

    Gray, palette, CMYK and YCbCr images have one plain meaning in RGB; so has an alpha channel that is
    opaque everywhere. Only for images of at most 8 bits a channel: of more, Pillow drops some without a word.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened; its size has been checked against the contract already.
    label : str
        The file as messages call it.

    Returns
    -------
    (rows, columns, 3) uint8

    Raises
    ------
    InputError
        For transparency, 32-bit and other modes whose meaning is not plain.
    """
    image = ImageOps.exif_transpose(image)
    mode = image.mode
    if mode == "P":
        mode = "RGBA" if "transparency" in image.info else "RGB"
        image = image.convert(mode)
    if "transparency" in image.info and mode in _BECOMES_RGB | _BECOMES_GRAY:
        image, mode = image.convert("RGBA"), "RGBA"
    if mode in _BECOMES_RGB:
        return np.asarray(image.convert("RGB"))
    if mode in _BECOMES_GRAY:
        return rgb_of_array(np.asarray(image.convert("L"))[..., None], label)
    if mode in _HAS_ALPHA:
        return rgb_of_array(np.asarray(image.convert("RGBA")), label)
    raise InputError(f"{label}: pixels of the kind {mode} have no plain meaning as RGB; save it as 8-bit RGB")


def rgb_of_array(pixels: NDArray[Any], label: str) -> NDArray[np.uint8]:
    """Turn (rows, columns, channels) of uint8 or uint16 into RGB uint8.

    1 channel is gray, 2 gray with alpha, 3 RGB, 4 RGB with alpha. Of 16 bits the higher 8 are kept.

    Raises
    ------
    InputError
        For another type or number of channels, an alpha channel that is not opaque, and 16-bit values that
        leave the upper bits unused (10- or 12-bit data: how bright is white?).
    """
    channels = pixels.shape[-1]
    has_alpha = channels in (2, 4)
    if pixels.dtype == np.uint16:
        if pixels.size and int(pixels[..., : channels - has_alpha].max()) < 1 << 12:
            raise InputError(
                f"{label}: 16-bit pixels whose values all lie below 4096 have no plain brightness; "
                "save it as 8-bit RGB"
            )
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise InputError(
            f"{label}: pixels of type {pixels.dtype} have no plain meaning; save it as 8-bit RGB"
        )
    if channels not in (1, 2, 3, 4):
        raise InputError(f"{label}: {channels} channels have no plain meaning; save it as 8-bit RGB")
    if has_alpha and pixels.size and int(pixels[..., -1].min()) < 255:
        raise InputError(f"{label}: is partly transparent: what lies behind? Save it as RGB without alpha")
    color = pixels[..., : channels - has_alpha]
    return np.ascontiguousarray(np.broadcast_to(color, (*color.shape[:2], 3)))


def oriented(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn stored pixels upright by the EXIF or TIFF orientation, 1 … 8; other values mean 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
