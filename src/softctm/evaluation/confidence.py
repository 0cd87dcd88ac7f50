"""Precision and recall over confidence.

Cells are matched by falling score, so a higher threshold only cuts off the end of the matching and leaves its
beginning as it was: one match serves all thresholds, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.evaluation.bootstrap import Band, Bootstrap, Estimate, percentile_interval
from softctm.evaluation.matching import CellTable, Match
from softctm.evaluation.scores import CLASSES, named_scores, precision_recall_f1, tally

THRESHOLDS = np.arange(101) / 100
"""Thresholds of the curves: 0.00, 0.01, … 1.00. A prediction counts if its score is not below."""


@dataclass(frozen=True)
class ClassCurve:
    """One class over confidence.

    Attributes
    ----------
    thresholds : (101,) float64
    precision, recall, f1 : Band of (101,)
        With predictions below the threshold left out; precision is NaN where none is left.
    best_threshold : Estimate
        The score that maximizes F1 (of equal ones the highest), exact to the score; its interval is from
        the 101 thresholds. NaN without predictions.
    at_best : mapping of str to Estimate
        `precision`, `recall`, `f1` at that threshold, held fixed. It was chosen on the same cells, so they
        are a little too good.
    """

    thresholds: NDArray[np.float64]
    precision: Band
    recall: Band
    f1: Band
    best_threshold: Estimate
    at_best: Mapping[str, Estimate]


@dataclass(frozen=True)
class Confidence:
    """Both classes' curves by abbreviation, and the mean F1 with each class at its own best threshold."""

    curves: Mapping[str, ClassCurve]
    mean_f1_at_best: Estimate


def confidence(matched: Match, predicted: CellTable, true: CellTable, bootstrap: Bootstrap) -> Confidence:
    """Analyze a same-class match."""
    counts = counts_over_thresholds(matched, predicted, true, bootstrap.pairs)
    bands = bootstrap.band(counts, _curves)
    # Of equal F1s the highest threshold, as for the exact one.
    f1 = precision_recall_f1(bootstrap.sums(counts))[2][:, ::-1]
    low, high = percentile_interval(THRESHOLDS[::-1][f1.argmax(axis=1)])
    best = np.array([_best_threshold(matched, predicted, true, label) for label in CLASSES])
    kept = predicted.score >= best.astype(np.float32)[predicted.label - CLASSES[0]]
    figures = bootstrap.estimates(_counts(matched, predicted, true, kept, bootstrap.pairs), named_scores)
    curves = {
        cell_class.short: ClassCurve(
            THRESHOLDS,
            precision=bands[:, i, 0],
            recall=bands[:, i, 1],
            f1=bands[:, i, 2],
            best_threshold=Estimate(float(best[i]), float(low[i]), float(high[i])),
            at_best={
                name: figures[f"{name}_{cell_class.short.lower()}"] for name in ("precision", "recall", "f1")
            },
        )
        for i, cell_class in enumerate(CLASSES)
    }
    return Confidence(curves, figures["mean_f1"])


def _curves(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Precision, recall and F1 on the last axis, of sums (…, 101, 2, 3)."""
    return np.stack(precision_recall_f1(sums, undefined=np.nan), axis=-1)


def counts_over_thresholds(
    matched: Match, predicted: CellTable, true: CellTable, pairs: int
) -> NDArray[np.int64]:
    """TP, FP and FN with only the predictions that reach each threshold.

    Returns
    -------
    (pairs, 101, 2, 3) int64
    """
    steps, classes = len(THRESHOLDS), len(CLASSES)
    step = np.searchsorted(THRESHOLDS.astype(np.float32), predicted.score, side="right") - 1
    slot = (predicted.pair * steps + step) * classes + predicted.label - CLASSES[0]

    def reaching(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        binned = np.bincount(slot[chosen], minlength=pairs * steps * classes).reshape(pairs, steps, classes)
        return binned[:, ::-1].cumsum(axis=1)[:, ::-1]

    tp = reaching(matched.is_tp)
    present = tally(true, np.ones(len(true), bool), pairs)[:, None]
    return np.stack([tp, reaching(~matched.is_tp), present - tp], axis=-1)


def _counts(
    matched: Match, predicted: CellTable, true: CellTable, kept: NDArray[np.bool_], pairs: int
) -> NDArray[np.int64]:
    """Counts (pairs, 2, 3) with only the kept predictions, a beginning of each class's matching order."""
    tp = tally(predicted, kept & matched.is_tp, pairs)
    present = tally(true, np.ones(len(true), bool), pairs)
    return np.stack([tp, tally(predicted, kept & ~matched.is_tp, pairs), present - tp], axis=-1)


def _best_threshold(matched: Match, predicted: CellTable, true: CellTable, label: int) -> float:
    """The score of one class at which its pooled F1 is highest; NaN without predictions."""
    own = predicted.label == label
    if not own.any():
        return float("nan")
    order = np.argsort(-predicted.score[own], kind="stable")
    score, is_tp = predicted.score[own][order], matched.is_tp[own][order]
    last = np.append(score[1:] != score[:-1], True)  # equal scores stand or fall together
    tp, kept = is_tp.cumsum()[last], np.arange(1, len(score) + 1)[last]
    f1 = 2 * tp / (kept + (true.label == label).sum())
    # The shortest decimal that is this float32, so that it reads, and cuts, as in the predictions' file.
    return float(str(score[last][f1.argmax()]))
