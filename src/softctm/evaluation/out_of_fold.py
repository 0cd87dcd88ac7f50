"""Out-of-fold scores of a model: every patient's cells found by networks that never saw that patient.

Post-processing is not tuned on what it is scored on: the rule of each fold is the one that does best on the
other folds' predictions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from softctm.evaluation.bootstrap import Bootstrap, Estimate
from softctm.evaluation.scores import count_pairs, named_scores, precision_recall_f1
from softctm.points import CellPoints
from softctm.postprocessing.methods import find_cells
from softctm.postprocessing.peaks import Peaks

SIGMAS_PX = (3.0, 4.5, 6.0)
DISTANCES_PX = (3, 7, 11)
THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)

AUTHORS_RULE = Peaks()
"""Blur of 3 px, distance 3 px, P(none) below the class's probability."""

_SEARCHES = tuple((sigma, distance) for sigma in SIGMAS_PX for distance in DISTANCES_PX)

RULES = (
    *(Peaks(sigma, distance) for sigma, distance in _SEARCHES),
    *(Peaks(sigma, distance, threshold) for sigma, distance in _SEARCHES for threshold in THRESHOLDS),
)
"""The rules that validation chooses from: the authors' condition, or thresholds, at any blur and distance."""


def count_by_rule(probability: NDArray[np.float32], true: CellPoints) -> NDArray[np.int64]:
    """TP, FP and FN of one pair under each of `RULES`.

    Parameters
    ----------
    probability : (3, 1024, 1024) float32
        None, background cell, tumor cell.
    true : CellPoints
        The annotated cells.

    Returns
    -------
    (rules, 2, 3) int64
    """
    found = [find_cells(probability, Peaks(sigma, distance)) for sigma, distance in _SEARCHES]
    blurred = {
        sigma: ndimage.gaussian_filter(1 - probability[0], sigma, mode="mirror") for sigma in SIGMAS_PX
    }
    for sigma, distance in _SEARCHES:
        # Peaks do not depend on the threshold, so one search at the lowest serves them all.
        peaks = find_cells(probability, Peaks(sigma, distance, THRESHOLDS[0]))
        height = blurred[sigma][peaks.y, peaks.x]
        found += [peaks.where(height > threshold) for threshold in THRESHOLDS]
    return count_pairs(found, [true] * len(found))


@dataclass(frozen=True)
class OutOfFold:
    """The outcome.

    Attributes
    ----------
    rules : dict of int to Peaks
        Fold → the rule chosen on the other folds.
    rule : Peaks
        The rule that does best on all folds: the model's own.
    counts : (pairs, 2, 3) int64
        TP, FP, FN of BC and TC, each pair under its fold's rule.
    authors_counts : (pairs, 2, 3) int64
        The same under the authors' rule.
    tissue_counts : (pairs, 2, 3) int64
        TP, FP, FN in pixels of background and cancer area; zeros of a model without tissue map.
    fold_of : (pairs,) int64
    organ_of, patient_of : tuple of str
    """

    rules: dict[int, Peaks]
    rule: Peaks
    counts: NDArray[np.int64]
    authors_counts: NDArray[np.int64]
    tissue_counts: NDArray[np.int64]
    fold_of: NDArray[np.int64]
    organ_of: tuple[str, ...]
    patient_of: tuple[str, ...]

    def estimates(self, chosen: NDArray[np.bool_] | None = None) -> dict[str, Estimate]:
        """Scores of the cells with 95 % intervals (bootstrap over patients).

        Of all pairs, with 0 for what is undefined, as the challenge has it; or of the chosen, with NaN.
        """
        member = slice(None) if chosen is None else chosen
        counts, patients = self.counts[member], np.array(self.patient_of)[member].tolist()
        figures = partial(named_scores, undefined=0.0 if chosen is None else np.nan)
        return Bootstrap(len(counts), unit_of=patients).estimates(counts, figures)

    def tissue_f1(self, chosen: NDArray[np.bool_] | None = None) -> float | None:
        """Mean of both classes' F1 over the known pixels; None where no tissue was looked for.

        Of all pairs, with 0 for a class that does not occur; or of the chosen, with None, as in `estimates`.
        """
        counts = self.tissue_counts if chosen is None else self.tissue_counts[chosen]
        if not counts.any():
            return None
        _, _, f1 = precision_recall_f1(counts.sum(0), undefined=0.0 if chosen is None else np.nan)
        return None if np.isnan(f1).any() else float(f1.mean())

    def to_json(self) -> dict[str, Any]:
        """Every figure, for `model.json` and for the table."""

        def group(chosen: NDArray[np.bool_] | None) -> dict[str, Any]:
            number = len(self.fold_of) if chosen is None else int(chosen.sum())
            figures = {
                name: [None if math.isnan(v) else round(v, 4) for v in (e.value, e.low, e.high)]
                for name, e in self.estimates(chosen).items()
            }
            tissue = self.tissue_f1(chosen)
            return {"pairs": number, **figures, "tissue_mean_f1": tissue and round(tissue, 4)}

        folds = {int(fold): group(self.fold_of == fold) for fold in np.unique(self.fold_of)}
        organs = np.array(self.organ_of)
        by_fold = [entry["mean_f1"][0] for entry in folds.values() if entry["mean_f1"][0] is not None]
        tissues = [entry["tissue_mean_f1"] for entry in folds.values()]
        return {
            "all": group(None),
            "mean_f1_over_folds": _mean_and_deviation(by_fold),
            "tissue_mean_f1_over_folds": _mean_and_deviation([f1 for f1 in tissues if f1 is not None]),
            "mean_f1_with_the_authors_rule": round(
                float(named_scores(self.authors_counts.sum(0))["mean_f1"]), 4
            ),
            "folds": folds,
            "organs": {organ: group(organs == organ) for organ in sorted(set(self.organ_of))},
            "rules": {fold: vars(rule) for fold, rule in self.rules.items()},
            "rule": vars(self.rule),
        }


def _mean_and_deviation(values: Sequence[float]) -> list[float] | None:
    """None of fewer than two values."""
    if len(values) < 2:
        return None
    return [round(float(np.mean(values)), 4), round(float(np.std(values, ddof=1)), 4)]


def out_of_fold(
    counts_by_rule: NDArray[np.int64],
    tissue_counts: NDArray[np.int64],
    fold_of: Sequence[int],
    organ_of: Sequence[str],
    patient_of: Sequence[str],
) -> OutOfFold:
    """Choose each fold's rule on the other folds, and count.

    Parameters
    ----------
    counts_by_rule : (pairs, rules, 2, 3) int64
        Of `count_by_rule`, pair by pair.
    tissue_counts : (pairs, 2, 3) int64
    fold_of, organ_of, patient_of : sequence
        Of each pair.
    """
    folds = np.asarray(fold_of)
    chosen = {int(fold): _best(counts_by_rule[folds != fold]) for fold in np.unique(folds)}
    index = np.array([chosen[int(fold)] for fold in folds])
    return OutOfFold(
        rules={fold: RULES[rule] for fold, rule in chosen.items()},
        rule=RULES[_best(counts_by_rule)],
        counts=counts_by_rule[np.arange(len(folds)), index],
        authors_counts=counts_by_rule[:, RULES.index(AUTHORS_RULE)],
        tissue_counts=np.asarray(tissue_counts),
        fold_of=folds,
        organ_of=tuple(organ_of),
        patient_of=tuple(patient_of),
    )


def _best(counts_by_rule: NDArray[np.int64]) -> int:
    """Index of the rule with the highest pooled mean F1."""
    return int(np.argmax(named_scores(counts_by_rule.sum(0))["mean_f1"]))
