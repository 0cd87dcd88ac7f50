"""Seams between fields of view: a cell that two fields report, each in its core, is one cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softctm.postprocessing.rivals import losers
from softctm.slides.lattice import CORE, core_of


def near_seam(x: NDArray[np.int32], y: NDArray[np.int32], distance: int) -> NDArray[np.bool_]:
    """Whether another field's point can be closer than `distance` to each point, (N,) bool.

    Parameters
    ----------
    x, y : (N,) int32
        Pixels of 0.2 µm on the slide.
    distance : int
        Of the peak rule, pixels.
    """
    near = np.zeros(len(x), np.bool_)
    for place in (x % CORE, y % CORE):
        near |= (place < distance - 1) | (place > CORE - distance)
    return near


def duplicates(
    x: NDArray[np.int32], y: NDArray[np.int32], height: NDArray[np.float32], distance: int
) -> NDArray[np.bool_]:
    """Which points go, because another field's point is closer than `distance` and higher.

    From the highest point to the lowest, on equality in row-major order, each that stays removes the other
    fields' points around it. So of two such points never both stay, and none goes but for one that stays.

    Parameters
    ----------
    x, y : (N,) int32
        Pixels of 0.2 µm on the slide; distances are Chebyshev's.
    height : (N,) float32
        Blurred foreground at the points.
    distance : int
        Of the peak rule, pixels.

    Returns
    -------
    (N,) bool
    """
    from scipy.spatial import KDTree

    if len(x) < 2 or distance < 2:
        return np.zeros(len(x), np.bool_)
    pairs = KDTree(np.column_stack((x, y))).query_pairs(distance - 1, p=np.inf, output_type="ndarray")
    column, row = core_of(x, y)
    first, second = pairs[:, 0], pairs[:, 1]
    pairs = pairs[(column[first] != column[second]) | (row[first] != row[second])]
    rank = np.empty(len(x), np.int64)
    rank[np.lexsort((x, y, -height))] = np.arange(len(x))
    return losers(pairs, rank)
