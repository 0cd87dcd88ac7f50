"""Are scores probabilities? Of the predictions with a score near 0.8, four in five should be TP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.evaluation.bootstrap import Band, Bootstrap, Estimate
from softctm.evaluation.matching import CellTable, Match
from softctm.evaluation.scores import CLASSES, ratio

BINS = 10
EDGES = np.arange(BINS + 1) / BINS
"""Borders of the score bins; each holds its lower border, the last one both."""


@dataclass(frozen=True)
class Calibration:
    """Reliability of the scores of one class, or of both together.

    Attributes
    ----------
    edges : (11,) float64
        Borders of the bins.
    predictions : (10,) int64
        Predictions by bin.
    mean_score : (10,) float64
        Their mean score; NaN in an empty bin.
    precision : Band of (10,)
        Share of them that are TP.
    figures : mapping of str to Estimate
        `expected_calibration_error`: mean distance of precision and score over predictions; `overconfidence`:
        mean score − precision; `brier`: mean squared distance of score and outcome.
    """

    edges: NDArray[np.float64]
    predictions: NDArray[np.int64]
    mean_score: NDArray[np.float64]
    precision: Band
    figures: Mapping[str, Estimate]


def calibration(matched: Match, predicted: CellTable, bootstrap: Bootstrap) -> dict[str, Calibration]:
    """Analyze a same-class match: `all`, `BC` and `TC`."""
    sums = _bin_sums(matched, predicted, bootstrap.pairs)
    parts = {"all": sums.sum(axis=1)}
    parts |= {cell_class.short: sums[:, i] for i, cell_class in enumerate(CLASSES)}
    return {name: _analyze(part, bootstrap) for name, part in parts.items()}


def _analyze(sums: NDArray[np.float64], bootstrap: Bootstrap) -> Calibration:
    """Reliability from sums (pairs, 10, 4)."""
    pooled = sums.sum(axis=0)
    return Calibration(
        EDGES,
        pooled[:, 0].astype(np.int64),
        ratio(pooled[:, 2], pooled[:, 0], np.nan),
        bootstrap.band(sums, lambda total: ratio(total[..., 1], total[..., 0], np.nan)),
        bootstrap.estimates(sums, _figures),
    )


def _bin_sums(matched: Match, predicted: CellTable, pairs: int) -> NDArray[np.float64]:
    """Number, TP, Σ score and Σ (score − TP)², (pairs, 2, 10, 4)."""
    score, is_tp = predicted.score.astype(np.float64), matched.is_tp.astype(np.float64)
    inner = EDGES[1:-1].astype(np.float32)
    step = np.searchsorted(inner, predicted.score, side="right")
    slot = (predicted.pair * len(CLASSES) + predicted.label - CLASSES[0]) * BINS + step
    quantities = (np.ones(len(slot)), is_tp, score, (score - is_tp) ** 2)
    slots = pairs * len(CLASSES) * BINS
    return np.stack(
        [np.bincount(slot, quantity, slots).reshape(pairs, len(CLASSES), BINS) for quantity in quantities],
        axis=-1,
    )


def _figures(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """All figures of bin sums (…, 10, 4)."""
    number, tp, score, squared = np.moveaxis(sums, -1, 0)
    total = number.sum(axis=-1)
    return {
        "expected_calibration_error": ratio(np.abs(tp - score).sum(axis=-1), total, np.nan),
        "overconfidence": ratio((score - tp).sum(axis=-1), total, np.nan),
        "brier": ratio(squared.sum(axis=-1), total, np.nan),
    }
