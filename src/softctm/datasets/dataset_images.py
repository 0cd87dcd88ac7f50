"""Reading the images of datasets, by the rules that hold for every image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.errors import InputError
from softctm.readers.single_images import read_single_image


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB; see `read_single_image`.

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
