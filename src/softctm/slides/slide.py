"""A slide: its geometry, and any window of it at any resolution."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from softctm.errors import SlideError
from softctm.slides.pyramid import Pyramid
from softctm.slides.resampling import axis_resampling, resample
from softctm.slides.resolution import MPP_RANGE, is_usable, resolution_warnings

_FINER = 1.01
"""A level up to 1 % coarser than asked for counts as fine enough: 0.802 µm for 0.8."""
_LARGEST_PIECE = 2048
"""Side of the largest piece of a level that is read at once, pixels: 12 MB, 50 MB while it is resampled."""


class Slide:
    """A slide of any format. May be read from several threads at once.

    Level-0 pixel (i, j) covers [i, i + 1) × [j, j + 1); a grid of another resolution begins at the same
    origin: its pixel i covers [i · mpp, (i + 1) · mpp) µm along each axis.

    Parameters
    ----------
    path : Path
        How messages call it.
    pyramid : Pyramid
    mpp : float, optional
        µm per level-0 pixel, instead of what the file says.

    Attributes
    ----------
    path : Path
    name : str
        The file's name without suffix.
    format : str
    width, height : int
        Level-0 pixels.
    mpp : (float, float)
        µm per level-0 pixel along x and y.
    origin : (int, int)
        Where level-0 pixel (0, 0) lies in the plane of programs that do not leave out what was not scanned.

    Raises
    ------
    SlideError
        If there is no usable resolution.
    """

    def __init__(self, path: Path, pyramid: Pyramid, mpp: float | None = None) -> None:
        self.path, self.name, self.format = path, path.stem, pyramid.format
        self._pyramid, self.origin = pyramid, pyramid.origin
        self.width, self.height = pyramid.levels[0].width, pyramid.levels[0].height
        self.mpp = _checked_mpp(path, pyramid.mpp, mpp)

    @property
    def width_um(self) -> float:
        """Width, µm."""
        return self.width * self.mpp[0]

    @property
    def height_um(self) -> float:
        """Height, µm."""
        return self.height * self.mpp[1]

    @property
    def level_count(self) -> int:
        """Resolutions that the file holds."""
        return len(self._pyramid.levels)

    def warnings_at(self, mpp: float) -> tuple[str, ...]:
        """What is lost if networks that know `mpp` µm per pixel look at the slide."""
        return resolution_warnings(str(self.path), max(self.mpp), mpp)

    def size_at(self, mpp: float) -> tuple[int, int]:
        """Width and height of the slide at a resolution, pixels, rounded up."""
        # A rest of a millionth of a pixel comes from the numbers' rounding, not from the slide.
        return math.ceil(self.width_um / mpp - 1e-6), math.ceil(self.height_um / mpp - 1e-6)

    def read(
        self, x: int, y: int, width: int, height: int, mpp: float, *, approximate: bool = False
    ) -> NDArray[np.uint8]:
        """A window of the slide at any resolution.

        Taken from the nearest finer level, area-averaged down or bicubic up (a = −0.75). The pixels are those
        that resampling the whole slide would give, whatever the window.

        Parameters
        ----------
        x, y, width, height : int
            In pixels of `mpp`, from the slide's origin; the window may leave the slide.
        mpp : float
            µm per pixel.
        approximate : bool
            Also use levels whose pixels do not lie exactly on level-0's: faster, and good for overviews.

        Returns
        -------
        (height, width, 3) uint8
            RGB, white outside of the slide.

        Raises
        ------
        SlideError
            If the file cannot be read there.
        """
        level = self._level_for(mpp, approximate)
        downsample = self._pyramid.levels[level].downsample
        scales = [mpp / (size * downsample) for size in self.mpp]
        result = np.empty((height, width, 3), np.uint8)
        step_x, step_y = (max(1, min(1024, int(_LARGEST_PIECE / max(scale, 1)))) for scale in scales)
        for top in range(0, height, step_y):
            rows = axis_resampling(y + top, min(step_y, height - top), scales[1])
            for left in range(0, width, step_x):
                columns = axis_resampling(x + left, min(step_x, width - left), scales[0])
                piece = self._pyramid.read(level, columns.first, rows.first, columns.length, rows.length)
                result[top : top + step_y, left : left + step_x] = resample(piece, rows, columns)
        return result

    def close(self) -> None:
        """Close the file."""
        self._pyramid.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _level_for(self, mpp: float, approximate: bool) -> int:
        """The coarsest level that is at least as fine as `mpp`, level 0 where none is."""
        best = 0
        for index, level in enumerate(self._pyramid.levels):
            fine_enough = max(self.mpp) * level.downsample <= mpp * _FINER
            coarser = level.downsample > self._pyramid.levels[best].downsample
            if fine_enough and coarser and (level.exact or approximate):
                best = index
        return best


def _checked_mpp(path: Path, stored: tuple[float, float] | None, given: float | None) -> tuple[float, float]:
    mpp = (given, given) if given is not None else stored
    where = "as given" if given is not None else "from the file"
    if mpp is None:
        raise SlideError(f"{path}: says nothing about its resolution; give µm per pixel with --mpp")
    for value in mpp:
        if not is_usable(value):
            raise SlideError(
                f"{path}: its resolution ({where}) is {value:.3g}, not {MPP_RANGE}; correct it with "
                "--mpp, or scan at 20x or more"
            )
    return mpp
