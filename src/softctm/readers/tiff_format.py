"""What a TIFF's header says of its pixels, read before any is decoded: taken as meant, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tifffile
from numpy.typing import NDArray

from softctm.errors import InputError
from softctm.readers.pixels import rgb_of_array

UNCOMPRESSED, JPEG = 1, 7
_FAX = {2, 3, 4}
_WITH_PREDICTOR = {5: "LZW", 8: "Deflate", 32946: "Deflate", 34925: "LZMA", 50000: "Zstandard"}
_READ = {UNCOMPRESSED, JPEG, 32773, *_FAX, *_WITH_PREDICTOR}
"""Compressions that Pillow decodes in all its builds of today; 32773 is PackBits."""

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLORS = {_PALETTE: "palette", _CMYK: "CMYK", _YCBCR: "YCbCr"}
_SAMPLE_FORMATS = {
    2: "signed integers",
    3: "floating-point numbers",
    5: "complex numbers",
    6: "complex numbers",
}
_UNSPECIFIED = 0
_REDUCED_OR_MASK = 0b101
Samples = NDArray[np.uint8] | NDArray[np.uint16]
_PLAIN = "save it as 8-bit RGB"


@dataclass(frozen=True)
class TiffFormat:
    """How the pixels of one image are stored.

    Attributes
    ----------
    compression : int
        The tag's value.
    bits : int
        Bits a sample, the same for all.
    samples : int
        Samples a pixel.
    photometric : int
        The tag's value: what the samples mean.
    planes : int
        1, or `samples` where each sample has strips or tiles of its own.
    differences : bool
        Whether samples are stored as differences from the pixel to their left (predictor 2).
    has_alpha : bool
        Whether the last sample is an alpha channel.
    """

    compression: int
    bits: int
    samples: int
    photometric: int
    planes: int
    differences: bool
    has_alpha: bool

    @property
    def is_direct(self) -> bool:
        """Whether samples are gray or RGB values of whole bytes, which need no conversion."""
        return self.bits in (8, 16) and self.photometric <= RGB and self.compression != JPEG

    @property
    def colors(self) -> int:
        """Samples that are gray or RGB values."""
        return 3 if self.photometric == RGB else 1


def format_of(page: tifffile.TiffPage, label: str) -> TiffFormat:
    """Read and check the tags that say how pixels are stored.

    Raises
    ------
    InputError
        If they are contradictory, or describe pixels that are not read; it names which.
    """
    compression = _one(page, 259, UNCOMPRESSED, label)
    if compression not in _READ:
        raise InputError(
            f"{label}: is compressed as {_compression_name(compression)}, which is not read; save it with "
            "LZW, Deflate or JPEG compression, or none"
        )
    samples, planar = _one(page, 277, 1, label), _one(page, 284, 1, label)
    kinds = set(_numbers(page, 339, (1,), label))
    if kinds - {1}:
        kind = _SAMPLE_FORMATS.get(min(kinds - {1}), "of an undefined kind")
        raise InputError(f"{label}: its pixels are {kind}, which have no plain meaning as color; {_PLAIN}")
    depths = set(_numbers(page, 258, (1,), label))
    if len(depths) > 1:
        raise InputError(f"{label}: its channels have {_listed(depths)} bits, not the same; {_PLAIN}")
    photometric = _one(page, 262, -1, label)
    extra = _numbers(page, 338, (), label)
    found = TiffFormat(
        compression=compression,
        bits=depths.pop(),
        samples=samples,
        photometric=photometric,
        planes=samples if planar == 2 else 1,
        differences=_one(page, 317, 1, label) == 2 and compression in _WITH_PREDICTOR,
        has_alpha=False,
    )
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, *_COLORS):
        said = "does not say what they mean" if photometric < 0 else _photometric_name(photometric)
        raise InputError(f"{label}: its pixels are no gray, RGB, palette or CMYK values ({said}); {_PLAIN}")
    if found.is_direct:
        return _direct(page, found, extra, label)
    _check_converted(page, found, label)
    return found


def holds_several(tiff: tifffile.TiffFile) -> bool:
    """Whether a TIFF has more images than one; reduced ones and masks belong to their image."""
    return any(
        not int(tiff.pages.get(index, validate=False).aspage().subfiletype) & _REDUCED_OR_MASK
        for index in range(1, len(tiff.pages))
    )


def check_whole(offsets: Sequence[int], counts: Sequence[int], label: str) -> None:
    """Refuse a sparse TIFF: what it leaves out would be black tissue.

    Parameters
    ----------
    offsets, counts : sequence of int
        Where each strip or tile begins, and its bytes.
    label : str
        The file as messages call it.

    Raises
    ------
    InputError
        If it leaves any out.
    """
    absent = sum(not offset and not count for offset, count in zip(offsets, counts, strict=True))
    if absent:
        raise InputError(
            f"{label}: leaves out {absent} of its {len(counts)} strips or tiles (a sparse TIFF); "
            "save it with all pixels"
        )


def meaning(samples: Samples, stored: TiffFormat, label: str) -> NDArray[np.uint8]:
    """What samples of a format that `is_direct` mean.

    Parameters
    ----------
    samples : (rows, columns, samples a pixel) uint8 or uint16
    stored : TiffFormat
    label : str
        The file as messages call it.

    Returns
    -------
    (rows, columns, 3) uint8
        RGB, not turned upright.

    Raises
    ------
    InputError
        As `rgb_of_array`.
    """
    values, alpha = samples[..., : stored.colors], samples[..., stored.colors :]
    if stored.photometric == WHITE_IS_ZERO:
        values = np.iinfo(values.dtype).max - values
    if stored.has_alpha:
        values = np.concatenate([values, alpha], axis=2)
    return rgb_of_array(values, label)


def _direct(page: tifffile.TiffPage, found: TiffFormat, extra: tuple[int, ...], label: str) -> TiffFormat:
    """Gray or RGB, perhaps with one more channel."""
    more = found.samples - found.colors
    if more not in (0, 1):
        raise InputError(
            f"{label}: {found.samples} channels have no plain meaning as "
            f"{'RGB' if found.colors == 3 else 'gray'}; {_PLAIN}"
        )
    if _one(page, 266, 1, label) != 1:
        raise InputError(f"{label}: its bits are stored in reverse (FillOrder 2); {_PLAIN}")
    if found.compression in _FAX or _one(page, 317, 1, label) not in (1, 2):
        raise InputError(f"{label}: its compression does not fit its pixels; {_PLAIN}")
    # An extra channel of a kind that is not named was meant as alpha by the programs that write such files.
    has_alpha = more == 1 and extra[:1] != (_UNSPECIFIED,)
    return TiffFormat(**{**vars(found), "has_alpha": has_alpha})


def _check_converted(page: tifffile.TiffPage, found: TiffFormat, label: str) -> None:
    """Refuse what Pillow would convert without a word, but not truly."""
    gray = found.photometric <= BLACK_IS_ZERO
    color = "gray" if gray else _COLORS.get(found.photometric, "RGB")
    allowed: Mapping[str, tuple[int, ...]] = {"gray": (1, 2, 4, 8), "palette": (1, 2, 4, 8)}
    if found.bits not in allowed.get(color, (8,)):
        raise InputError(f"{label}: has {found.bits} bits a sample ({color}), which is not read; {_PLAIN}")
    if found.compression in _FAX and (not gray or found.bits != 1):
        raise InputError(f"{label}: its compression does not fit its pixels; {_PLAIN}")
    if found.compression == JPEG and found.photometric == WHITE_IS_ZERO:
        raise InputError(
            f"{label}: is a negative (white is zero) compressed as JPEG, which is not read; {_PLAIN}"
        )
    if found.photometric == _YCBCR and found.compression != JPEG:
        raise InputError(f"{label}: holds YCbCr pixels that are not compressed as JPEG; {_PLAIN}")
    if found.samples != {"gray": 1, "palette": 1, "CMYK": 4}.get(color, 3):
        raise InputError(f"{label}: {found.samples} channels have no plain meaning as {color}; {_PLAIN}")
    if found.planes > 1:
        raise InputError(f"{label}: stores its {color} channels one after the other; {_PLAIN}")
    if found.photometric == _CMYK and _one(page, 332, 1, label) != 1:
        raise InputError(f"{label}: its inks are not cyan, magenta, yellow and black; {_PLAIN}")
    palette = _numbers(page, 320, (), label)
    if found.photometric == _PALETTE and max(palette, default=0) < 256:
        raise InputError(f"{label}: its palette is missing or uses only the lower 8 of its 16 bits; {_PLAIN}")


def _numbers(page: tifffile.TiffPage, code: int, default: tuple[int, ...], label: str) -> tuple[int, ...]:
    """A tag's values."""
    values = np.ravel(page.tags.valueof(code, default=default))
    if values.size and values.dtype.kind not in "iu":
        raise InputError(f"{label}: its tag {code} holds no whole numbers; export it again")
    return tuple(values.tolist())


def _one(page: tifffile.TiffPage, code: int, default: int, label: str) -> int:
    """A tag's only value."""
    values = _numbers(page, code, (default,), label)
    if len(values) != 1:
        raise InputError(
            f"{label}: its tag {code} holds {len(values)} values instead of one; export it again"
        )
    return values[0]


def _compression_name(value: int) -> str:
    """As people call it, else its number."""
    try:
        return f"{tifffile.COMPRESSION(value).name} (number {value})"
    except ValueError:
        return f"number {value}"


def _photometric_name(value: int) -> str:
    """As the TIFF specification calls it, else its number."""
    try:
        return f"but {tifffile.PHOTOMETRIC(value).name}"
    except ValueError:
        return f"but of the unknown kind {value}"


def _listed(values: set[int]) -> str:
    shown = [str(value) for value in sorted(values)[:4]]
    return " and ".join([*shown, "more"] if len(values) > len(shown) else shown)
