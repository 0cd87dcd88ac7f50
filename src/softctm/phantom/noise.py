"""Smooth random fields in µm, and the pixel grids that they are averaged over."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from softctm.pair import PATCH_SIZE, TISSUE_MPP

Float = NDArray[np.floating[Any]]

FIELD = PATCH_SIZE * TISSUE_MPP
"""Side of the scene, µm: what the tissue patch shows."""

SPLINE_RMS = 0.479
"""Root mean square of a cubic B-spline's weights over one knot interval, per axis squared: undone below."""


class Noise:
    """A cubic B-spline surface over independent normal values: mean 0, standard deviation 1.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the values come from.
    extent : float
        Side of the square field, µm.
    wavelength : float
        Distance of the values, µm; structures are about twice as large.
    """

    def __init__(self, rng: np.random.Generator, extent: float, wavelength: float) -> None:
        self.wavelength = wavelength
        self.knots = int(np.ceil(extent / wavelength)) + 4
        self.values = rng.standard_normal((self.knots, self.knots), dtype=np.float32) / np.float32(SPLINE_RMS)

    def on_grid(self, x: Float, y: Float) -> Float:
        """Mean over each pixel of the grid with centers `x` (W,) and `y` (H,), µm, equally spaced: (H, W).

        Averaging happens in the spline's weights, so a coarse grid shows exactly the mean of a finer one.
        """
        rows = _pixel_weights(y, self.wavelength, self.knots)
        columns = _pixel_weights(x, self.wavelength, self.knots)
        return np.asarray((columns @ (rows @ self.values).T).T, dtype=np.float32)


class Streaks:
    """Noise stretched along one direction, read at arbitrary points: fibres.

    Parameters
    ----------
    rng : numpy.random.Generator
    extent : float
        Half the range of the coordinates, µm: both lie in −extent … extent.
    length, width : float
        Distance of the values along and across the fibres, µm.
    """

    def __init__(self, rng: np.random.Generator, extent: float, length: float, width: float) -> None:
        self.extent, self.length, self.width = extent, length, width
        shape = (int(2 * extent / width) + 2, int(2 * extent / length) + 2)
        self.values = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0.7, 0.5))
        self.values /= self.values.std()

    def at(self, along: Float, across: Float) -> Float:
        """Value at each point; `along` and `across` in µm, of any equal shape."""
        rows = (across + self.extent) / self.width
        columns = (along + self.extent) / self.length
        return np.asarray(
            ndimage.map_coordinates(self.values, [rows, columns], order=1, mode="nearest"), dtype=np.float32
        )


def grid(start: float, count: int, mpp: float) -> Float:
    """Centers, µm, of `count` pixels of `mpp` µm from `start` µm on."""
    return (start + (np.arange(count) + 0.5) * mpp).astype(np.float32)


def _pixel_weights(centers: Float, wavelength: float, knots: int) -> sparse.csr_array:
    """Weights (P, knots) that give the spline's mean over each of P pixels."""
    pitch = float(centers[1] - centers[0])
    samples = max(1, int(np.ceil(2 * pitch / wavelength)))
    # Multiples of four keep the 0.8 µm grid's samples on the centers of the 0.2 µm grid.
    samples = 1 if samples == 1 and pitch < 0.5 else 4 * int(np.ceil(samples / 4))
    shifts = ((np.arange(samples) + 0.5) / samples - 0.5) * pitch
    at = (centers[:, None] + shifts).astype(np.float64) / wavelength + 1
    first = np.floor(at).astype(np.int64)
    t = at - first
    basis = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    columns = np.clip(first + np.arange(-1, 3)[:, None, None], 0, knots - 1)
    rows = np.broadcast_to(np.arange(len(centers))[None, :, None], columns.shape)
    weights = sparse.coo_array(
        ((basis / samples).ravel().astype(np.float32), (rows.ravel(), columns.ravel())),
        shape=(len(centers), knots),
    )
    return weights.tocsr()
