"""What a nuclei network learns: nucleus or not, distances to the nucleus' center, type."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNKNOWN_TYPE = -1
"""Type of the pixels of a nucleus whose type nobody annotated; the type loss leaves them out."""


def horizontal_vertical(instances: NDArray[np.integer]) -> NDArray[np.float32]:
    """Each nucleus' pixels' distances from its center (HoVer-Net, arXiv 1812.06499, section III-A).

    Parameters
    ----------
    instances : (H, W) int
        0 is background.

    Returns
    -------
    (2, H, W) float32
        To the right, then downward: −1 at the nucleus' first column (row), 0 at its center of mass, 1 at its
        last; 0 in the background.
    """
    ids, labels = np.unique(instances, return_inverse=True)
    labels = labels.reshape(-1)
    count = np.bincount(labels)
    result = np.zeros((2, labels.size), np.float32)
    rows, columns = np.indices(instances.shape).reshape(2, -1)
    for axis, position in enumerate((columns, rows)):
        distance = position - (np.bincount(labels, position) / count)[labels]
        first, last = np.zeros(len(ids)), np.zeros(len(ids))
        np.minimum.at(first, labels, distance)
        np.maximum.at(last, labels, distance)
        extent = np.where(distance < 0, -first[labels], last[labels])
        np.divide(distance, extent, out=result[axis], where=extent > 0, casting="same_kind")
    result[:, ids[labels] == 0] = 0
    return result.reshape(2, *instances.shape)


def nuclei_target(
    instances: NDArray[np.integer], type_of: NDArray[np.integer], tissue: int = UNKNOWN_TYPE
) -> NDArray[np.float32]:
    """All that a crop teaches, stacked.

    Parameters
    ----------
    instances : (H, W) int
        0 is background.
    type_of : (N,) int
        Type of each instance ID modulo N, 0 for background; `UNKNOWN_TYPE` where not annotated.
    tissue : int
        Class of the tissue, or `UNKNOWN_TYPE`.

    Returns
    -------
    (5, H, W) float32
        Nucleus (0 or 1), horizontal and vertical distance (−1 … 1), type, tissue (the same everywhere).
    """
    result = np.empty((5, *instances.shape), np.float32)
    result[0] = instances > 0
    result[1:3] = horizontal_vertical(instances)
    result[3] = type_of[instances % len(type_of)]
    result[4] = tissue
    return result
