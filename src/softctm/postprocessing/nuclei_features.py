"""What is measured of a nucleus beside its position: size, shape, and how much hematoxylin it took up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed

from softctm.nuclei_table import NucleiTable

_DECADES = 6
"""scikit-image divides by ln(1e-6), so that its concentrations are optical densities over 6."""

_NEIGHBOR_CODE = (1, 2, 10)
"""What a border pixel itself, one beside it, and one diagonal to it add to the code of its surroundings."""

_BORDER_LENGTH = np.zeros(50)
"""Length that a border pixel stands for, by the code of its surroundings."""
_BORDER_LENGTH[[5, 7, 15, 17, 25, 27]] = 1
_BORDER_LENGTH[[21, 33]] = np.sqrt(2)
_BORDER_LENGTH[[13, 23]] = (1 + np.sqrt(2)) / 2


@dataclass(frozen=True)
class NucleiFeatures:
    """Measurements, a value a nucleus of the table that they belong to.

    Attributes
    ----------
    area_um2 : (N,) float64
        Number of pixels × the area of one, µm².
    perimeter_um : (N,) float64
        Length of the line through the centers of the border pixels (Benkrid & Crookes 2000), µm.
    eccentricity : (N,) float64
        Of the ellipse with the same second moments: 0 a circle, toward 1 a line.
    hematoxylin_od : (N,) float64
        Mean optical density (base 10) of hematoxylin, by the color deconvolution of Ruifrok & Johnston 2001.
    """

    area_um2: NDArray[np.float64]
    perimeter_um: NDArray[np.float64]
    eccentricity: NDArray[np.float64]
    hematoxylin_od: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> NucleiFeatures:
        """The nuclei that a mask (N,) or indices choose."""
        return NucleiFeatures(**{name: column[chosen] for name, column in vars(self).items()})

    @classmethod
    def concatenated(cls, parts: Sequence[NucleiFeatures]) -> NucleiFeatures:
        """The measurements of several tables, one at least, in their order."""
        return cls(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def measure_nuclei(
    image: NDArray[np.uint8], instances: NDArray[np.integer], table: NucleiTable, *, mpp: float
) -> NucleiFeatures:
    """Measure the nuclei of a table.

    Parameters
    ----------
    image : (H, W, 3) uint8
        The H&E image, RGB.
    instances : (H, W) integer
        Where the nuclei are.
    table : NucleiTable
        Nuclei of that map.
    mpp : float
        µm per pixel of the map, above 0.

    Raises
    ------
    ValueError
        If the shapes differ or `mpp` is not positive.
    """
    if image.shape != (*instances.shape, 3):
        raise ValueError(f"image must be {(*instances.shape, 3)}, not {image.shape}")
    if not mpp > 0:
        raise ValueError(f"mpp must be above 0, not {mpp}")
    if not len(table):
        return NucleiFeatures(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0))
    place = np.full(max(int(instances.max()), int(table.id.max())) + 1, -1)
    place[table.id] = np.arange(len(table))
    rows, columns = np.nonzero(instances)
    owner = place[instances[rows, columns]]
    rows, columns, owner = rows[owner >= 0], columns[owner >= 0], owner[owner >= 0]
    hematoxylin = _DECADES * rgb2hed(image[rows, columns][None])[0, :, 0]
    return NucleiFeatures(
        area_um2=table.area_px * np.float64(mpp**2),
        perimeter_um=_perimeter(instances, rows, columns, owner, len(table)) * mpp,
        eccentricity=_eccentricity(rows, columns, owner, table),
        hematoxylin_od=np.bincount(owner, hematoxylin, len(table)) / table.area_px,
    )


def _eccentricity(
    rows: NDArray[np.intp], columns: NDArray[np.intp], owner: NDArray[np.intp], table: NucleiTable
) -> NDArray[np.float64]:
    """From the eigenvalues of each nucleus' covariance: √(1 − smaller / larger)."""
    dx, dy = columns - table.x[owner], rows - table.y[owner]
    xx, xy, yy = (
        np.bincount(owner, product, len(table)) / table.area_px for product in (dx * dx, dx * dy, dy * dy)
    )
    spread = np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    larger, smaller = (xx + yy + spread) / 2, np.maximum((xx + yy - spread) / 2, 0)
    # One pixel has no extent at all, and is as round as can be.
    part = np.divide(smaller, larger, out=np.ones(len(table)), where=larger > 0)
    eccentricity: NDArray[np.float64] = np.sqrt(1 - part)
    return eccentricity


def _perimeter(
    instances: NDArray[np.integer],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    owner: NDArray[np.intp],
    count: int,
) -> NDArray[np.float64]:
    """scikit-image's perimeter of all nuclei at once, pixels."""
    labels = np.pad(instances, 1)
    own = labels[1:-1, 1:-1]
    inside = own != 0
    for axis in (0, 1):
        for step in (-1, 1):
            inside &= own == np.roll(labels, step, axis)[1:-1, 1:-1]
    border = np.pad((own != 0) & ~inside, 1)
    on_border = border[rows + 1, columns + 1]
    y, x, owner = rows[on_border] + 1, columns[on_border] + 1, owner[on_border]
    code = np.zeros(len(y), np.int64)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            near = border[y + down, x + right] & (labels[y + down, x + right] == labels[y, x])
            code += near * _NEIGHBOR_CODE[abs(down) + abs(right)]
    return np.bincount(owner, _BORDER_LENGTH[code], count).astype(np.float64)
