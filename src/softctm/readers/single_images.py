"""Single images of any size, and where a user's words for them lead: files, and folders of files."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from softctm.errors import InputError, SoftCTMError, one_line
from softctm.extras import missing
from softctm.readers.images import SUFFIXES, decoded, list_images
from softctm.readers.pixels import oriented, rgb_of_image
from softctm.readers.tiff_format import check_whole, format_of, holds_several, meaning

MAX_MEGAPIXELS = 178
"""Most that is read at once: Pillow takes what is larger for an attack."""

_TOO_LARGE = f"larger than {MAX_MEGAPIXELS} million pixels; save it as TIFF for `softctm slides`, or cut it"

_ENDINGS = tuple(ending for ending in SUFFIXES if ending != ".mha")


def find_images(places: Sequence[Path]) -> dict[str, Path]:
    """Image files by name, which is the file's without its ending.

    Parameters
    ----------
    places : sequence of Path
        Files, which are taken whatever their ending, and folders, of which the images are taken: JPEG, PNG,
        BMP and TIFF, in the order of their names. Folders below are not looked into.

    Raises
    ------
    InputError
        If a place does not exist, a folder holds no image, or two images have the same name.
    """
    found: dict[str, Path] = {}
    for place in places:
        if place.is_dir():
            by_stem, _ = list_images(place, str(place))
            files = [file for same in by_stem.values() for file in same if file.suffix.lower() in _ENDINGS]
            if not files:
                raise InputError(
                    f"{place}: holds no images ({', '.join(_ENDINGS)}); name a folder that does, or give "
                    "slides to `softctm slides`"
                )
        elif place.exists():
            files = [place]
        else:
            raise InputError(f"{place}: is not there; name an image or a folder of images")
        for file in files:
            name = unicodedata.normalize("NFC", file.stem)
            if name in found and found[name] != file:
                raise InputError(
                    f"{found[name]} and {file} have the same name, {name}, and so would their results; "
                    "rename one, or give them apart"
                )
            found[name] = file
    return found


def read_single_image(path: Path, label: str | None = None) -> NDArray[np.uint8]:
    """Read an image of any size, up to `MAX_MEGAPIXELS`: JPEG, PNG, TIFF or BMP.

    Parameters
    ----------
    path : Path
    label : str, optional
        The file as messages call it; by default its path.

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    InputError
        If it is empty, damaged, too large, of another kind, or its pixels have no plain meaning as RGB.
    """
    label = str(path) if label is None else label
    sampled = _samples_of_tiff(path, label)
    if sampled is not None:
        return sampled
    return decoded(
        path, label, lambda width, height: None, lambda image: rgb_of_image(image, label), _TOO_LARGE
    )


def _samples_of_tiff(path: Path, label: str) -> NDArray[np.uint8] | None:
    """The one image of a TIFF with more bits or channels than Pillow reads truly; None of any other file.

    Raises
    ------
    InputError
        If it is a TIFF of several images, or of a kind that is not read, which it names.
    MissingPackageError
        If its compression needs a library that is not installed.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            if holds_several(tiff):
                raise InputError(
                    f"{label}: holds more than one image; if it is a slide, give it to `softctm slides` with "
                    "--weights model_weights/nuclei, else save each as a file of its own"
                )
            found = format_of(page, label)
            check_whole(page.dataoffsets, page.databytecounts, label)
            if not found.is_direct or (found.bits == 8 and found.samples == found.colors):
                return None
            if int(page.imagewidth) * int(page.imagelength) > MAX_MEGAPIXELS * 10**6:
                raise InputError(f"{label}: is {_TOO_LARGE}")
            try:
                pixels = page.asarray()
            except ValueError as error:
                if "imagecodecs" not in str(error):
                    raise
                if found.bits == 8:
                    return None  # Pillow reads it, or refuses it
                raise missing("imagecodecs") from error
            if found.planes > 1:
                pixels = np.moveaxis(pixels, 0, -1)
            samples = pixels.reshape(*pixels.shape[:2], -1)
            return oriented(meaning(samples, found, label), int(page.tags.valueof(274, default=1)))
    except SoftCTMError:
        raise
    except (OSError, tifffile.TiffFileError):  # no TIFF, or nothing at all
        return None
    except Exception as error:  # tifffile raises whatever damaged data lead to
        raise InputError(
            f"{label}: cannot be decoded ({one_line(error)}); copy or export it again"
        ) from error
