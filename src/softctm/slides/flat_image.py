"""A JPEG or PNG as a slide of one level; it says nothing about its resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from softctm.errors import InputError, SlideError, one_line
from softctm.readers.single_images import read_single_image
from softctm.slides.pyramid import WHITE, Level, inside, on_white

SUFFIXES = (".jpg", ".jpeg", ".png")


class FlatImage:
    """A `Pyramid` held in memory: such a file can only be decoded as a whole.

    A camera's note on orientation is followed; what is transparent is laid on white. Pillow's guard against
    decompression bombs holds: at most 178 million pixels.
    """

    mpp: tuple[float, float] | None = None
    origin = (0, 0)

    def __init__(self, path: Path) -> None:
        try:
            with Image.open(path) as image:
                self.format = str(image.format)
                laid = None
                if "A" in image.getbands() or "transparency" in image.info:
                    laid = on_white(np.asarray(ImageOps.exif_transpose(image).convert("RGBA")))
            # Whatever is opaque means what it means to `softctm nuclei`.
            self._pixels = read_single_image(path) if laid is None else laid
        except InputError as error:
            raise SlideError(str(error)) from error
        except Image.DecompressionBombError as error:
            raise SlideError(
                f"{path}: is too large for a flat image ({error}); convert it to a tiled TIFF"
            ) from error
        except Exception as error:
            raise SlideError(f"{path}: is not a slide or image ({one_line(error)})") from error
        height, width = self._pixels.shape[:2]
        self.levels: tuple[Level, ...] = (Level(width, height, 1.0, True),)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """See `Pyramid.read`."""
        window = np.full((height, width, 3), WHITE, np.uint8)
        (x0, x1), (y0, y1) = inside(x, width, self.levels[0].width), inside(y, height, self.levels[0].height)
        window[y0 - y : y1 - y, x0 - x : x1 - x] = self._pixels[y0:y1, x0:x1]
        return window

    def close(self) -> None:
        """See `Pyramid.close`."""
