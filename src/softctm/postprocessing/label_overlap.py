"""Which labels of two maps share pixels, and how many: the sparse joint histogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelOverlap:
    """Pairs of labels that share at least one pixel, sorted by `first`, then `second`.

    Attributes
    ----------
    first, second : (K,) int64
        Labels above 0.
    pixels : (K,) int64
        Number of pixels that both cover.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    pixels: NDArray[np.int64]


def label_overlap(first: NDArray[np.integer], second: NDArray[np.integer]) -> LabelOverlap:
    """Count the pixels that each label of one map shares with each of the other.

    Parameters
    ----------
    first, second : integer arrays of one shape
        0 background, else a label.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"maps of different shapes cannot be compared: {first.shape}, {second.shape}")
    both = (first != 0) & (second != 0)
    if not both.any():
        nothing = np.zeros(0, np.int64)
        return LabelOverlap(nothing, nothing, nothing)
    others = second[both].astype(np.int64)
    length = int(others.max()) + 1
    code, pixels = np.unique(first[both].astype(np.int64) * length + others, return_counts=True)
    return LabelOverlap(code // length, code % length, pixels.astype(np.int64))
