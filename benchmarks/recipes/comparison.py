"""Experiments against the recipe: pooled scores, differences, and their intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from softctm.evaluation.bootstrap import Bootstrap, Estimate
from softctm.evaluation.out_of_fold import out_of_fold
from softctm.evaluation.scores import named_scores
from softctm.evaluation.tissue import tissue_figures
from softctm.training.config import Task
from softctm.training.cross_validation import EnsembleRun

Figures = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]

FIGURES: dict[Task, Figures] = {"cells": named_scores, "tissue": tissue_figures}
"""Task → all figures of counts (…, 2, 3)."""

SHOWN: dict[Task, dict[str, str]] = {
    "cells": {"mean F1": "mean_f1", "F1 BC": "f1_bc", "F1 TC": "f1_tc"},
    "tissue": {"mean F1": "mean_f1", "F1 background": "f1_background", "F1 cancer": "f1_cancer"},
}
"""Task → what the table shows, and which figure that is."""


class Difference(Estimate):
    """How far an experiment's mean F1 is from the recipe's, with its 95 % interval."""

    def __str__(self) -> str:
        """As the table has it."""
        interval = "" if np.isnan(self.low) else f" [{self.low:+.4f}, {self.high:+.4f}]"
        return f"{self.value:+.4f}{interval}"


def counts_by_patient(
    task: Task, counts: Mapping[int, NDArray[np.int64]], run: EnsembleRun
) -> NDArray[np.float64]:
    """Sum what the pairs of a patient contribute; rules that find cells are chosen on the other folds.

    Parameters
    ----------
    counts : mapping of int to (pairs, rules, 2, 3) int64
        Fold → what was counted of its pairs, in the order of `run.pairs`.

    Returns
    -------
    (patients, 2, 3) float64
    """
    pairs = [
        pair for fold in counts for pair, own in zip(run.pairs, run.fold_of(), strict=True) if own == fold
    ]
    by_rule = np.concatenate(list(counts.values()))
    found = by_rule[:, 0]
    if task == "cells":
        folds = np.concatenate([np.full(len(own), fold) for fold, own in counts.items()])
        nothing = np.zeros_like(found)
        organs, patients = [pair.organ for pair in pairs], [pair.patient for pair in pairs]
        found = out_of_fold(by_rule, nothing, folds.tolist(), organs, patients).counts
    names, patient = np.unique([pair.patient for pair in pairs], return_inverse=True)
    by_patient = np.zeros((len(names), 2, 3))
    np.add.at(by_patient, patient, found)
    return by_patient


def difference(
    task: Task, counts: NDArray[np.float64], baseline: NDArray[np.float64], bootstrap: Bootstrap
) -> Difference:
    """Compare the mean F1 of (n, 2, 3) counts; both are resampled alike, by the units of `bootstrap`."""

    def apart(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        mean_f1 = FIGURES[task](sums)["mean_f1"]
        return {"mean_f1": mean_f1[..., 0] - mean_f1[..., 1]}

    both = np.stack([counts, baseline], axis=1)
    return Difference(**vars(bootstrap.estimates(both, apart)["mean_f1"]))
