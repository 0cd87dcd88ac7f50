"""Reading the images of datasets, by the rules that hold for every image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from softctm.errors import InputError
from softctm.readers.single_images import read_single_image

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Of files that hold an image, in lower case."""


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An image in color, (H, W, 3) uint8 RGB; see `read_single_image`.

    Raises
    ------
    InputError
        If it cannot be read, with the reason.
    """
    try:
        return read_single_image(path, "it")
    except InputError as error:
        raise InputError(
            f"{path}: cannot be read as an image: {str(error).replace('it: ', 'it ', 1)}"
        ) from None


def read_label_image(path: Path) -> NDArray[Any]:
    """Numbers instead of colors, as they are stored: (H, W), or more where an image has several channels.

    Raises
    ------
    InputError
        If it is missing, cannot be read, or has more pixels than an image of labels can have.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; add it") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: is not an image; replace it") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as a label image ({error}); replace it") from None
