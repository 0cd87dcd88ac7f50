"""From matches to the challenge's numbers: counts, precision, recall, F1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.evaluation.matching import CellTable, Match, match_tables
from softctm.points import CellClass, CellPoints

CLASSES = (CellClass.BACKGROUND, CellClass.TUMOR)
"""Order of the class axis in every array of the evaluation: BC, TC."""

TP, FP, FN = range(3)
"""Order of the last axis of counts: true positives, false positives, false negatives."""

_CHALLENGE_EPSILON = 1e-7


@dataclass(frozen=True)
class Scores:
    """Pooled scores.

    Attributes
    ----------
    counts : (2, 3) int64
        TP, FP, FN of BC and TC over all pairs.
    challenge : mapping of str to float
        `Pre/BC`, `Rec/BC`, `F1/BC`, `Pre/TC`, `Rec/TC`, `F1/TC`, each rounded to four decimals, and `mF1`,
        the mean of the two rounded F1s: what the challenge's evaluator prints.
    unrounded : mapping of str to float
        `precision_bc`, `recall_bc`, `f1_bc`, …, `mean_f1`; 0 where nothing was there to be found or claimed.
    """

    counts: NDArray[np.int64]
    challenge: Mapping[str, float]
    unrounded: Mapping[str, float]

    @property
    def mean_f1(self) -> float:
        """The unrounded mean of the two F1s."""
        return self.unrounded["mean_f1"]


def pair_counts(predicted: CellPoints, true: CellPoints) -> NDArray[np.int64]:
    """TP, FP and FN of one pair.

    Returns
    -------
    (2, 3) int64
        Rows BC, TC; columns TP, FP, FN.
    """
    counts: NDArray[np.int64] = count_pairs([predicted], [true])[0]
    return counts


def count_pairs(predicted: Sequence[CellPoints], true: Sequence[CellPoints]) -> NDArray[np.int64]:
    """`pair_counts` of many pairs in one go, which is several times faster than one by one.

    Returns
    -------
    (pairs, 2, 3) int64

    Raises
    ------
    ValueError
        If the two lists are not equally long.
    """
    if len(predicted) != len(true):
        raise ValueError(f"{len(predicted)} predicted pairs cannot be counted against {len(true)} true ones")
    predicted_cells, true_cells = CellTable.of(predicted), CellTable.of(true)
    return counts_of(match_tables(predicted_cells, true_cells), predicted_cells, true_cells, len(true))


def counts_of(matched: Match, predicted: CellTable, true: CellTable, pairs: int) -> NDArray[np.int64]:
    """Counts per pair and class of a same-class match.

    Returns
    -------
    (pairs, 2, 3) int64
    """
    counts = np.empty((pairs, len(CLASSES), 3), np.int64)
    counts[..., TP] = tally(predicted, matched.is_tp, pairs)
    counts[..., FP] = tally(predicted, ~matched.is_tp, pairs)
    counts[..., FN] = tally(true, ~matched.found, pairs)
    return counts


def tally(cells: CellTable, chosen: NDArray[np.bool_], pairs: int) -> NDArray[np.int64]:
    """Number of the chosen cells by pair and class, (pairs, 2) int64."""
    slot = cells.pair[chosen] * len(CLASSES) + cells.label[chosen] - CLASSES[0]
    return np.bincount(slot, minlength=pairs * len(CLASSES)).reshape(pairs, len(CLASSES)).astype(np.int64)


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64], undefined: float) -> NDArray[np.float64]:
    """`part / whole`, and `undefined` where `whole` is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    quotient = np.full(np.broadcast(part, whole).shape, undefined, np.float64)
    np.divide(part, whole, out=quotient, where=whole != 0)
    return quotient


def precision_recall_f1(
    counts: NDArray[np.int64] | NDArray[np.float64], *, undefined: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Unrounded scores of counts whose last axis is TP, FP, FN.

    Parameters
    ----------
    counts : (…, 3) array
    undefined : float
        What stands for 0 / 0; the challenge takes 0, analyses of small groups had better take NaN.

    Returns
    -------
    precision, recall, f1 : (…) float64
        Each 0 … 1.
    """
    tp, fp, fn = (np.asarray(counts[..., i], np.float64) for i in (TP, FP, FN))
    return (
        ratio(tp, tp + fp, undefined),
        ratio(tp, tp + fn, undefined),
        ratio(2 * tp, 2 * tp + fp + fn, undefined),
    )


def named_scores(
    counts: NDArray[np.int64] | NDArray[np.float64], *, undefined: float = 0.0
) -> dict[str, NDArray[np.float64]]:
    """Unrounded scores by name, of counts (…, 2, 3): `precision_bc`, `recall_bc`, `f1_bc`, …, `mean_f1`."""
    return by_class_name(*precision_recall_f1(counts, undefined=undefined))


def by_class_name(
    precision: NDArray[np.float64], recall: NDArray[np.float64], f1: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Name arrays (…, 2) as `named_scores` does, the mean F1 last."""
    named = {}
    for i, cell_class in enumerate(CLASSES):
        short = cell_class.short.lower()
        named[f"precision_{short}"] = precision[..., i]
        named[f"recall_{short}"] = recall[..., i]
        named[f"f1_{short}"] = f1[..., i]
    return named | {"mean_f1": f1.mean(axis=-1)}


def challenge_scores(counts: NDArray[np.int64]) -> dict[str, float]:
    """The challenge's numbers, of pooled counts (2, 3).

    The challenge adds 1e-7 to every denominator before it rounds: it avoids 0 / 0, and at a tie of the fifth
    decimal it decides the fourth.
    """
    named: dict[str, float] = {}
    for cell_class, (tp, fp, fn) in zip(CLASSES, counts.tolist(), strict=True):
        precision = tp / (tp + fp + _CHALLENGE_EPSILON)
        recall = tp / (tp + fn + _CHALLENGE_EPSILON)
        f1 = 2 * precision * recall / (precision + recall + _CHALLENGE_EPSILON)
        short = cell_class.short
        named |= {
            f"Pre/{short}": round(precision, 4),
            f"Rec/{short}": round(recall, 4),
            f"F1/{short}": round(f1, 4),
        }
    named["mF1"] = sum(named[f"F1/{cell_class.short}"] for cell_class in CLASSES) / len(CLASSES)
    return named


def score(counts: NDArray[np.int64]) -> Scores:
    """Pool counts over pairs and score them.

    Parameters
    ----------
    counts : (pairs, 2, 3) or (2, 3) int
        As `count_pairs` and `pair_counts` give them.
    """
    pooled = np.asarray(counts, np.int64).reshape(-1, len(CLASSES), 3).sum(axis=0)
    unrounded = {name: float(value) for name, value in named_scores(pooled).items()}
    return Scores(pooled, challenge_scores(pooled), unrounded)
