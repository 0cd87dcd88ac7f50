"""From a nucleus mask and distance maps to separate nuclei (HoVer-Net's method, as CellViT uses it).

Graham et al., Medical Image Analysis 2019, section 3.2; Hörst et al., arXiv 2306.15350. Every step works on
whole arrays: none goes through the nuclei one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from softctm.nuclei_table import NucleiTable, tabulate
from softctm.ort.runtime import Runtime, Value

_MIN_OBJECT_PX = 10
_EDGE_LEVEL = 0.4
_KERNEL = {40: 21, 20: 11}
"""Side of the Sobel kernel by magnification."""
_MIN_MARKER_PX = {40: 10, 20: 3}
_GAUSSIAN = np.array([0.25, 0.5, 0.25])
# OpenCV's 5 × 5 ellipse, which is not round.
_ELLIPSE = np.array(
    [[0, 0, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]], bool
)


NUCLEUS_HEAD, DISTANCE_HEAD, TYPE_HEAD = "nuclei_binary_map", "hv_map", "nuclei_type_map"
"""Heads of a model whose maps this method decodes, as CellViT names them."""

TOKEN_HEAD = "tokens"
"""A head that such a model may have besides: the encoder's last tokens, of which embeddings are made."""


@dataclass(frozen=True)
class Hover:
    """How maps become nuclei.

    Attributes
    ----------
    magnification : 40 or 20
        The kernel's size and the least marker, which were chosen for 40, or for 20.
    """

    magnification: int = 40

    def __post_init__(self) -> None:
        if self.magnification not in _KERNEL:
            raise ValueError(f"magnification must be one of {sorted(_KERNEL)}, not {self.magnification}")


@dataclass(frozen=True, eq=False)
class SeparatedNuclei:
    """What the method finds in an image.

    Attributes
    ----------
    instances : (H, W) int32
        0 background, 1 … n nuclei.
    types : (H, W) uint8
        The most probable type of every pixel, 0 for background.
    tokens : (D, h, w) float32, or None where the model gives none
        The encoder's last tokens; each stands for a square of pixels.
    """

    instances: NDArray[np.int32]
    types: NDArray[np.uint8]
    tokens: NDArray[np.float32] | None = None


class HoverDecoder:
    """The method made ready; it runs on the host."""

    def __init__(self, settings: Hover, runtime: Runtime) -> None:
        self._settings = settings

    def __call__(self, maps: Mapping[str, Value]) -> SeparatedNuclei:
        """The nuclei in maps (1, classes, H, W): of nucleus or not, of distances, and of types."""
        binary = maps[NUCLEUS_HEAD].numpy()[0].argmax(axis=0)
        h, v = maps[DISTANCE_HEAD].numpy()[0]
        types = maps[TYPE_HEAD].numpy()[0].argmax(axis=0).astype(np.uint8)
        magnification = self._settings.magnification
        tokens = maps[TOKEN_HEAD].numpy()[0] if TOKEN_HEAD in maps else None
        return SeparatedNuclei(separate_nuclei(binary, h, v, magnification=magnification), types, tokens)


def separate_nuclei(
    binary: NDArray[np.generic], h: NDArray[np.floating], v: NDArray[np.floating], *, magnification: int
) -> NDArray[np.int32]:
    """Give every nucleus of a mask its own number.

    Parameters
    ----------
    binary : (H, W) bool or integer
        Nucleus (not 0) or not.
    h, v : (H, W) float
        Horizontal and vertical distance to the nucleus' center, about −1 … 1; finite.
    magnification : 40 or 20
        40 for 0.25 µm per pixel, 20 for 0.5.

    Returns
    -------
    (H, W) int32
        0 background, 1 … n nuclei, each 4-connected, numbered by their marker in row-major order.

    Raises
    ------
    ValueError
        If the shapes differ or the magnification is another.
    """
    if binary.ndim != 2 or not binary.shape == h.shape == v.shape:
        raise ValueError(
            f"binary, h and v must be (H, W) of one shape, not {[binary.shape, h.shape, v.shape]}"
        )
    if magnification not in _KERNEL:
        raise ValueError(f"magnification must be one of {sorted(_KERNEL)}, not {magnification}")
    from skimage.segmentation import watershed  # slow to import, and only models of this kind need it

    mask = _without_small(binary != 0, _MIN_OBJECT_PX) > 0
    if not mask.any():
        return np.zeros(binary.shape, np.int32)
    edge = _edges(h, v, _KERNEL[magnification])
    edge = np.where(mask, edge, 0)
    landscape = np.where(mask, 1 - edge, 0).astype(np.float64)
    for axis in (0, 1):
        landscape = ndimage.correlate1d(landscape, _GAUSSIAN, axis, mode="mirror")
    core = ndimage.binary_fill_holes(mask & (edge < _EDGE_LEVEL))
    # Beyond the border, an erosion sees nucleus and a dilation none, as OpenCV has it.
    core = ndimage.binary_dilation(ndimage.binary_erosion(core, _ELLIPSE, border_value=1), _ELLIPSE)
    markers = _without_small(core, _MIN_MARKER_PX[magnification])
    instances: NDArray[np.int32] = watershed(-landscape, markers=markers, mask=mask).astype(np.int32)
    return instances


def classify_nuclei(instances: NDArray[np.integer], types: NDArray[np.integer]) -> NucleiTable:
    """Name the nuclei by the pixels that they cover, and measure where they are; see `tabulate`.

    A nucleus of fewer than three contour points, which is one pixel or a straight line of them, is left out.

    Parameters
    ----------
    instances : (H, W) integer
        0 background, else the nucleus' number; memory grows with the largest number.
    types : (H, W) integer
        Type of every pixel, 0 … 255.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    table = tabulate(instances, types)
    return table.where(has_outline(table))


def has_outline(table: NucleiTable) -> NDArray[np.bool_]:
    """(N,) Whether the contour through a nucleus' border pixels has three corners or more.

    It has fewer where the pixels form a straight line: along an axis the box is one pixel wide; along a
    diagonal there are as many pixels as the box has rows and as it has columns.
    """
    height, width = table.box[:, 2] - table.box[:, 0], table.box[:, 3] - table.box[:, 1]
    is_diagonal = (height == width) & (table.area_px == height)
    is_line: NDArray[np.bool_] = (np.minimum(height, width) == 1) | is_diagonal
    return ~is_line


def _edges(h: NDArray[np.floating], v: NDArray[np.floating], kernel: int) -> NDArray[np.float32]:
    """Where neighboring pixels point to different centers: 0 … 1, float32."""
    smooth, difference = _sobel(kernel)
    inverted = []
    for plane, axis in ((h, 1), (v, 0)):
        steep = ndimage.correlate1d(_scaled(plane).astype(np.float64), difference, axis, mode="mirror")
        steep = ndimage.correlate1d(steep, smooth, 1 - axis, mode="mirror")
        inverted.append(1 - _scaled(steep))
    edges: NDArray[np.float32] = np.maximum(*inverted)
    return edges


@lru_cache
def _sobel(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """OpenCV's separable Sobel kernel: binomial weights, and their differences."""
    pascal = np.ones(1)
    for _ in range(size - 2):
        pascal = np.convolve(pascal, [1.0, 1.0])
    return np.convolve(pascal, [1.0, 1.0]), np.convolve(pascal, [-1.0, 1.0])


def _scaled(plane: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale to 0 … 1 by the extremes; a flat plane becomes 0."""
    low, high = float(plane.min()), float(plane.max())
    factor = 1 / (high - low) if high - low > np.finfo(np.float64).eps else 0.0
    scaled: NDArray[np.float32] = (plane.astype(np.float64) * factor - low * factor).astype(np.float32)
    return scaled


def _without_small(mask: NDArray[np.bool_], least: int) -> NDArray[np.int32]:
    """Label the 4-connected components of at least `least` pixels, in row-major order."""
    labels, _ = ndimage.label(mask)
    keep = np.bincount(labels.ravel()) >= least
    keep[0] = False
    renumbered: NDArray[np.int32] = np.where(keep, np.cumsum(keep), 0).astype(np.int32)[labels]
    return renumbered
