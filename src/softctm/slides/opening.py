"""Open a slide, whatever its format."""

from __future__ import annotations

from pathlib import Path

import tifffile

from softctm.errors import SlideError
from softctm.slides.flat_image import FlatImage
from softctm.slides.openslide_pyramid import OpenSlidePyramid, is_known
from softctm.slides.pyramid import Pyramid
from softctm.slides.slide import Slide
from softctm.slides.tiff_pyramid import TiffPyramid

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_slide(path: Path | str, mpp: float | None = None) -> Slide:
    """Open a whole-slide image.

    OpenSlide's formats, TIFF and OME-TIFF (tiled or in strips), JPEG and PNG; the content decides, not the
    suffix.

    Parameters
    ----------
    path : path
        The file; for DICOM, one file of the slide or the folder that holds nothing else.
    mpp : float, optional
        µm per pixel, instead of what the file says; needed where it says nothing.

    Returns
    -------
    Slide
        A context manager.

    Raises
    ------
    SlideError
        If it is no slide, cannot be read, or has no usable resolution.
    MissingPackageError
        If OpenSlide is not installed.
    """
    path = Path(path)
    pyramid = _open(_file_of(path))
    try:
        return Slide(path, pyramid, mpp)
    except SlideError:
        pyramid.close()
        raise


def _file_of(path: Path) -> Path:
    """The file to open: a folder of DICOM files stands for its first one."""
    if path.is_dir():
        try:
            files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".dcm")
        except OSError as error:
            raise SlideError(f"{path}: cannot be looked into ({error.strerror}); check it") from error
        if not files:
            raise SlideError(f"{path}: is a folder without DICOM files; name a slide")
        return files[0]
    if not path.is_file():
        raise SlideError(f"{path}: no such file; check the path")
    return path


def _open(path: Path) -> Pyramid:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise SlideError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    is_tiff = start in _TIFF_STARTS
    # OpenSlide sees only the largest image of an OME-TIFF, whose levels are sub-files.
    if is_tiff and _is_ome(path):
        return TiffPyramid(path)
    if is_known(path):
        return OpenSlidePyramid(path)
    if is_tiff:
        return TiffPyramid(path)
    return FlatImage(path)


def _is_ome(path: Path) -> bool:
    try:
        with tifffile.TiffFile(path) as file:
            return bool(file.is_ome)
    except Exception:  # a broken file is named by whoever opens it in earnest
        return False
