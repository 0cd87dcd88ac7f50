"""A JPEG or PNG as a slide of one level; it says nothing about its resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softctm.errors import SlideError
from softctm.slides.pyramid import WHITE, Level, inside, on_white

SUFFIXES = (".jpg", ".jpeg", ".png")


class FlatImage:
    """A `Pyramid` held in memory: such a file can only be decoded as a whole.

    Pillow's guard against decompression bombs holds: at most 179 million pixels.
    """

    mpp: tuple[float, float] | None = None

    def __init__(self, path: Path) -> None:
        try:
            with Image.open(path) as image:
                self.format = str(image.format)
                has_alpha = "A" in image.getbands() or "transparency" in image.info
                if image.mode in ("I", "I;16", "F"):
                    raise SlideError(f"{path}: has more than 8 bits a pixel; convert it to 8-bit RGB")
                pixels = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
        except SlideError:
            raise
        except Image.DecompressionBombError as error:
            raise SlideError(
                f"{path}: is too large for a flat image ({error}); convert it to a tiled TIFF"
            ) from error
        except Exception as error:
            raise SlideError(f"{path}: is not a slide or image ({' '.join(str(error).split())})") from error
        self._pixels = on_white(pixels) if has_alpha else pixels
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
