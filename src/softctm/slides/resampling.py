"""From a window at one resolution to a window at another: area average down, bicubic up.

The weights of an output pixel depend on its place on the slide alone, and are added in the order of the
input pixels: a pixel is the same to the bit, whatever window it is read in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from softctm.cubic import cubic_kernel

_Number = TypeVar("_Number", bound=np.generic)

_SAME = 1e-6
"""Scales this close to 1 are taken for 1: a tenth of a pixel of drift over the largest slides."""


@dataclass(frozen=True)
class AxisResampling:
    """One axis: output pixels start … start + count, each covering `scale` input pixels.

    Attributes
    ----------
    first, length : int
        The input pixels that are needed; `first` may be negative.
    weights : (count, length) float32, scipy.sparse.csr_array; None where output and input pixels are the same
    """

    first: int
    length: int
    weights: Any


def axis_resampling(start: int, count: int, scale: float) -> AxisResampling:
    """The weights of output pixels start … start + count; pixel i covers [i · scale, (i + 1) · scale)."""
    if abs(scale - 1) < _SAME:
        return AxisResampling(start, count, None)
    index = np.arange(start, start + count)
    columns, values = _area(index, scale) if scale > 1 else _cubic(index, scale)
    first, last = int(columns.min()), int(columns.max())
    return AxisResampling(first, last + 1 - first, _sparse(columns - first, values, last + 1 - first))


def resample(
    image: NDArray[np.uint8], vertical: AxisResampling, horizontal: AxisResampling
) -> NDArray[np.uint8]:
    """Resample a window (H, W, 3) uint8 that holds just the pixels that both axes need; rounded to uint8."""
    if vertical.weights is None and horizontal.weights is None:
        return image
    values = _along_rows(image.astype(np.float32), vertical)
    values = _along_rows(_transposed(values), horizontal)
    rounded: NDArray[np.uint8] = np.rint(values.clip(0, 255)).astype(np.uint8)
    return _transposed(rounded)


def _transposed(image: NDArray[_Number]) -> NDArray[_Number]:
    """Rows and columns exchanged, in memory too; copying pixels as a whole takes a third of the time."""
    pixels = np.ascontiguousarray(image).view(f"V{3 * image.itemsize}")[..., 0]
    exchanged: NDArray[_Number] = np.ascontiguousarray(pixels.T)[..., None].view(image.dtype)
    return exchanged


def _along_rows(values: NDArray[np.float32], axis: AxisResampling) -> NDArray[np.float32]:
    if axis.weights is None:
        return values
    height, width, channels = values.shape
    flat = np.ascontiguousarray(values).reshape(height, width * channels)
    result: NDArray[np.float32] = (axis.weights @ flat).reshape(-1, width, channels)
    return result


def _area(index: NDArray[np.int64], scale: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Input pixels and their share of each output pixel, (count, n) each; shares beyond the pixel are 0."""
    low, high = index * scale, (index + 1) * scale
    reach = int(np.ceil(scale)) + 1
    columns = np.floor(low).astype(np.int64)[:, None] + np.arange(reach)
    covered = np.minimum(columns + 1, high[:, None]) - np.maximum(columns, low[:, None])
    return columns, covered.clip(0) / scale


def _cubic(index: NDArray[np.int64], scale: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The four input pixels around each output pixel's center, and Keys's weights."""
    center = (index + 0.5) * scale - 0.5
    columns = np.floor(center).astype(np.int64)[:, None] + np.arange(-1, 3)
    return columns, cubic_kernel(np.abs(center[:, None] - columns))


def _sparse(columns: NDArray[np.int64], values: NDArray[np.float64], length: int) -> Any:
    from scipy import sparse

    keep = values != 0
    pointers = np.concatenate(([0], np.cumsum(keep.sum(axis=1))))
    entries = (values[keep].astype(np.float32), columns[keep].astype(np.int32), pointers.astype(np.int32))
    return sparse.csr_array(entries, shape=(len(columns), length))
