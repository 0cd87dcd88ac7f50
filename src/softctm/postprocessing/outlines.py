"""From an instance map to polygons: the contours of all nuclei at once, without a loop over them.

A contour runs through the middle of every pixel side that separates the nucleus from what is not it: marching
squares at level 0.5. Each such side is met once, so that a polygon never touches itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Sides of a pixel in the order top, right, bottom, left, as (down, right): where the outside lies, and where
# a walk along the side leads.
_OUT = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])
_AHEAD = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])
_MIDDLE = 0.5 + 0.5 * _OUT


@dataclass(frozen=True)
class Outlines:
    """One closed polygon a nucleus, without holes.

    Attributes
    ----------
    id : (N,) int32
        The nuclei.
    start : (N + 1,) int64
        The corners of nucleus i are rows start[i] … start[i + 1] − 1 of `corners`.
    corners : (M, 2) float64
        x, y; pixel (i, j) covers [j, j + 1) × [i, i + 1), so that its center is at + 0.5. Counterclockwise
        as GeoJSON means it, the area Σ (xᵢ yᵢ₊₁ − yᵢ xᵢ₊₁) / 2 being positive (on a screen, where y points
        down, that looks clockwise). The first corner is not repeated at the end.
    """

    id: NDArray[np.int32]
    start: NDArray[np.int64]
    corners: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, index: int) -> NDArray[np.float64]:
        """The polygon (k, 2) of the index-th nucleus."""
        return self.corners[self.start[index] : self.start[index + 1]]

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Outlines:
        """The outlines that a mask (N,) or indices choose."""
        sizes = np.diff(self.start)[chosen]
        start = np.concatenate(([0], np.cumsum(sizes)))
        corners = np.arange(start[-1]) + np.repeat(self.start[:-1][chosen] - start[:-1], sizes)
        return Outlines(self.id[chosen], start, self.corners[corners])

    @classmethod
    def concatenated(cls, parts: Sequence[Outlines]) -> Outlines:
        """The outlines of several tables, one at least, in their order."""
        start = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part.start) for part in parts]))])
        ids, corners = (np.concatenate([vars(part)[name] for part in parts]) for name in ("id", "corners"))
        return cls(ids, start, corners)


def outlines(instances: NDArray[np.integer]) -> Outlines:
    """The outer contour of every nucleus, holes closed.

    A nucleus in several pieces (4-connected) is outlined by the one with the largest contour.

    Parameters
    ----------
    instances : (H, W) integer
        0 background, else the nucleus' number.

    Returns
    -------
    Outlines
        Of every number that occurs. A single pixel has four corners; corners on straight lines are left out.
    """
    labels = np.pad(instances, 1)
    side, row, column = _sides(labels)
    if not len(side):
        return Outlines(np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros((0, 2)))
    following = _following(labels, side, row, column)
    middle = np.column_stack((row, column)) - 1 + _MIDDLE[side]
    y, x = middle.T
    first, place = _cycles(following)
    # Twice the enclosed area; holes run the other way round and come out negative.
    area = np.bincount(first, x * y[following] - y * x[following], minlength=len(side))
    owner = labels[row, column]
    # Of each nucleus, the cycle of largest area: the last after sorting.
    cycles = np.unique(first)
    cycles = cycles[np.lexsort((area[cycles], owner[cycles]))]
    cycles = cycles[np.append(owner[cycles][1:] != owner[cycles][:-1], True)]
    is_outer = np.zeros(len(side), bool)
    is_outer[cycles] = True
    previous = np.empty_like(following)
    previous[following] = np.arange(len(side))
    step = middle[following] - middle
    turns = (step != step[previous]).any(axis=1)
    chosen = np.flatnonzero(is_outer[first] & turns)
    chosen = chosen[np.lexsort((place[chosen], owner[chosen]))]
    ids, sizes = np.unique(owner[chosen], return_counts=True)
    start = np.concatenate(([0], np.cumsum(sizes)))
    return Outlines(ids.astype(np.int32), start, np.column_stack((x[chosen], y[chosen])))


def _sides(labels: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Side, row and column of every pixel side between a nucleus and something else."""
    inner = labels[1:-1, 1:-1]
    height, width = labels.shape
    beyond = [labels[1 + down : height - 1 + down, 1 + right : width - 1 + right] for down, right in _OUT]
    side, row, column = np.nonzero([(inner != 0) & (inner != other) for other in beyond])
    return side, row + 1, column + 1


def _following(
    labels: NDArray[np.integer], side: NDArray[np.intp], row: NDArray[np.intp], column: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Index of the side that follows each on its contour."""
    own = labels[row, column]
    ahead = np.column_stack((row, column)) + _AHEAD[side]
    diagonal = ahead + _OUT[side]
    goes_on = labels[ahead[:, 0], ahead[:, 1]] == own
    turns_out = goes_on & (labels[diagonal[:, 0], diagonal[:, 1]] == own)
    # Around the corner of the pixel itself, straight on, or out to the diagonal pixel's side.
    new_side = np.where(turns_out, (side - 1) % 4, np.where(goes_on, side, (side + 1) % 4))
    new_row = np.where(turns_out, diagonal[:, 0], np.where(goes_on, ahead[:, 0], row))
    new_column = np.where(turns_out, diagonal[:, 1], np.where(goes_on, ahead[:, 1], column))
    width = labels.shape[1]
    number = (row * width + column) * 4 + side
    order = np.argsort(number)
    wanted = (new_row * width + new_column) * 4 + new_side
    following: NDArray[np.intp] = order[np.searchsorted(number[order], wanted)]
    return following


def _cycles(following: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For every element of a permutation, the smallest of its cycle and the steps that lead to that one.

    By doubling: after k rounds each element has looked 2^k steps ahead, so that the longest contour, not the
    number of contours, says how many rounds it takes. Steps are counted backward so that they rise along it.
    """
    smallest, jump = np.arange(len(following)), following
    while True:
        lower = np.minimum(smallest, smallest[jump])
        if (lower == smallest).all():
            break
        smallest, jump = lower, jump[jump]
    is_first = smallest == np.arange(len(following))
    # Cut every cycle at its smallest, then add up what is left until there.
    steps = np.where(is_first, 0, 1)
    jump = np.where(is_first, np.arange(len(following)), following)
    while (jump != smallest).any():
        steps, jump = steps + steps[jump], jump[jump]
    return smallest, -steps
