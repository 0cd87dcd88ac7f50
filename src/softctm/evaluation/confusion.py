"""Detection and classification apart: detection regardless of class, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.evaluation.bootstrap import Bootstrap, Estimate
from softctm.evaluation.matching import CellTable, Match
from softctm.evaluation.scores import CLASSES, precision_recall_f1, ratio

_NONE = len(CLASSES)
OUTCOMES = (*(cell_class.short for cell_class in CLASSES), "none")
"""Names of the confusion matrix's rows and columns."""


@dataclass(frozen=True)
class Confusion:
    """Outcome of matching regardless of class.

    Attributes
    ----------
    matrix : (3, 3) int64
        Rows: true BC, TC, none (FP). Columns: predicted BC, TC, none (FN).
    figures : mapping of str to Estimate
        `detection_precision`, `detection_recall`, `detection_f1`: cells found, whatever they are called.
        `class_accuracy`: share of matched cells with the right class; `kappa`: Cohen's, agreement beyond
        chance. `bc_called_tc`, `tc_called_bc`: share of the matched true cells of the one class that were
        given the other.
    """

    matrix: NDArray[np.int64]
    figures: Mapping[str, Estimate]


def confusion(matrices: NDArray[np.int64], bootstrap: Bootstrap) -> Confusion:
    """Analyze the confusion matrices of all pairs, (pairs, 3, 3)."""
    return Confusion(matrices.sum(axis=0), bootstrap.estimates(matrices, _figures))


def pair_matrices(matched: Match, predicted: CellTable, true: CellTable, pairs: int) -> NDArray[np.int64]:
    """Confusion matrix of each pair, (pairs, 3, 3) int64; `matched` was made with `same_class=False`."""
    size = len(OUTCOMES)
    is_fn = ~matched.found
    row = np.full(len(predicted), _NONE)
    row[matched.is_tp] = true.label[matched.true_cell[matched.is_tp]] - CLASSES[0]
    cells = np.concatenate(
        [
            (predicted.pair * size + row) * size + predicted.label - CLASSES[0],
            (true.pair[is_fn] * size + true.label[is_fn] - CLASSES[0]) * size + _NONE,
        ]
    )
    return np.bincount(cells, minlength=pairs * size * size).reshape(pairs, size, size).astype(np.int64)


def _figures(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """All figures of matrices (…, 3, 3)."""
    matched = sums[..., :_NONE, :_NONE]
    total = matched.sum(axis=(-2, -1))
    fp, fn = sums[..., _NONE, :].sum(axis=-1), sums[..., :, _NONE].sum(axis=-1)
    precision, recall, f1 = precision_recall_f1(np.stack([total, fp, fn], -1), undefined=np.nan)
    accuracy = ratio(np.trace(matched, axis1=-2, axis2=-1), total, np.nan)
    rows, columns = matched.sum(axis=-1), matched.sum(axis=-2)
    chance = ratio((rows * columns).sum(axis=-1), total**2, np.nan)
    return {
        "detection_precision": precision,
        "detection_recall": recall,
        "detection_f1": f1,
        "class_accuracy": accuracy,
        "kappa": ratio(accuracy - chance, 1 - chance, np.nan),
        "bc_called_tc": ratio(matched[..., 0, 1], rows[..., 0], np.nan),
        "tc_called_bc": ratio(matched[..., 1, 0], rows[..., 1], np.nan),
    }
