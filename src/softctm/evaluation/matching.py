"""Which predicted cell is matched to which true cell: the challenge's greedy rule.

Predictions are taken by falling score (compared as float32, equal ones in input order). Each takes the
nearest true cell within 15 px that is still free; of equally near ones the first listed. A k-d tree finds the
candidates, so the cost grows with the cells, not with their square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from softctm.points import CellPoints

MATCH_DISTANCE = 15
"""Largest distance of a match, pixels of 0.2 µm, inclusive: 3 µm."""

_GROUP_GAP = 8 * MATCH_DISTANCE


@dataclass(frozen=True)
class CellTable:
    """The cells of many pairs, one pair after the other, in input order.

    Attributes
    ----------
    pair : (N,) intp
        Number of the pair, 0 …, never falling.
    x, y : (N,) int64
        Position in the cell patch, pixels.
    label : (N,) intp
        `CellClass` numbers.
    score : (N,) float32
        Confidence, 0 … 1.
    """

    pair: NDArray[np.intp]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    label: NDArray[np.intp]
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.pair)

    @classmethod
    def of(cls, pairs: Sequence[CellPoints]) -> CellTable:
        """Join the cells of pairs 0, 1, …"""
        pairs = [CellPoints.empty(), *pairs]  # np.concatenate needs one, and it fixes the types
        lengths = [len(points) for points in pairs[1:]]
        return cls(
            pair=np.repeat(np.arange(len(lengths)), lengths).astype(np.intp),
            x=np.concatenate([points.x for points in pairs]).astype(np.int64),
            y=np.concatenate([points.y for points in pairs]).astype(np.int64),
            label=np.concatenate([points.label for points in pairs]).astype(np.intp),
            score=np.concatenate([points.score for points in pairs]).astype(np.float32),
        )


@dataclass(frozen=True)
class Match:
    """The outcome for N predictions and M true cells.

    Attributes
    ----------
    true_cell : (N,) intp
        Index of the true cell that each prediction is matched to; −1 for a false positive.
    prediction : (M,) intp
        Index of the prediction that is matched to each true cell; −1 for a false negative.
    distance : (N,) float64
        Distance of each true positive, pixels, 0 … 15; NaN for a false positive.
    """

    true_cell: NDArray[np.intp]
    prediction: NDArray[np.intp]
    distance: NDArray[np.float64]

    @property
    def is_tp(self) -> NDArray[np.bool_]:
        """(N,) Whether each prediction is a true positive; the others are false positives."""
        return self.true_cell >= 0

    @property
    def found(self) -> NDArray[np.bool_]:
        """(M,) Whether each true cell was found; the others are false negatives."""
        return self.prediction >= 0


def match(predicted: CellPoints, true: CellPoints, *, same_class: bool = True) -> Match:
    """Match the cells of one pair; see `match_tables`."""
    return match_tables(CellTable.of([predicted]), CellTable.of([true]), same_class=same_class)


def match_tables(predicted: CellTable, true: CellTable, *, same_class: bool = True) -> Match:
    """Match the cells of all pairs at once.

    Parameters
    ----------
    predicted, true : CellTable
        Cells of the same pairs. The scores of the true cells play no part.
    same_class : bool
        Whether a prediction can only match a true cell of its own class, as in the challenge. If False, all
        classes compete for all true cells: detection regardless of class.

    Returns
    -------
    Match
        Indices into the two tables.
    """
    rows, columns, squared = _candidates(predicted, true, same_class)
    rank = np.empty(len(predicted), np.intp)
    # Stable, on float32: equal scores keep the order of the file.
    rank[np.argsort(-predicted.score, kind="stable")] = np.arange(len(predicted))
    order = np.lexsort((columns, squared, rank[rows]))
    true_cell = [-1] * len(predicted)
    prediction = [-1] * len(true)
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if true_cell[row] < 0 and prediction[column] < 0:
            true_cell[row] = column
            prediction[column] = row
    partner = np.array(true_cell, np.intp)
    distance = np.full(len(predicted), np.nan)
    is_tp = partner >= 0
    distance[is_tp] = np.hypot(
        predicted.x[is_tp] - true.x[partner[is_tp]], predicted.y[is_tp] - true.y[partner[is_tp]]
    )
    return Match(partner, np.array(prediction, np.intp), distance)


def _candidates(
    predicted: CellTable, true: CellTable, same_class: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """All (prediction, true cell, squared distance) within reach, in integers: 15 px is exactly 15 px."""
    if not len(predicted) or not len(true):
        nothing = np.zeros(0, np.intp)
        return nothing, nothing, np.zeros(0, np.int64)

    def tree(cells: CellTable) -> cKDTree:
        # A third axis keeps pairs (and classes) out of each other's reach, so that one tree serves them all.
        group = cells.pair * 4 + cells.label * same_class
        return cKDTree(np.column_stack((cells.x, cells.y, group * _GROUP_GAP)), balanced_tree=False)

    near = tree(predicted).sparse_distance_matrix(tree(true), MATCH_DISTANCE + 0.5, output_type="ndarray")
    rows, columns = near["i"].astype(np.intp), near["j"].astype(np.intp)
    squared = (predicted.x[rows] - true.x[columns]) ** 2 + (predicted.y[rows] - true.y[columns]) ** 2
    within = squared <= MATCH_DISTANCE**2
    return rows[within], columns[within], squared[within]
