"""What an evaluation found: one object for the terminal, the files and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.evaluation.bootstrap import CONFIDENCE_LEVEL, Estimate
from softctm.evaluation.calibration import Calibration
from softctm.evaluation.confidence import Confidence
from softctm.evaluation.confusion import Confusion
from softctm.evaluation.distance import DistanceErrors
from softctm.evaluation.jsonable import jsonable
from softctm.evaluation.matching import MATCH_DISTANCE, Match
from softctm.evaluation.purity import Purity
from softctm.evaluation.subgroups import Subgroup
from softctm.evaluation.tissue import TissueScore
from softctm.evaluation.truth import GroundTruth, GroundTruthPair
from softctm.points import CellPoints

SCHEMA_VERSION = 2
"""Rises when a field of the JSON changes its meaning or goes."""


@dataclass(frozen=True)
class PairResult:
    """One pair.

    Attributes
    ----------
    index : int
        i of `image_<i>`.
    truth : GroundTruthPair
        Name, true cells, organ, and where the images lie.
    predicted : CellPoints
    match : Match
        Same-class match of this pair; its indices are into `predicted` and `truth.points`.
    counts : (2, 3) int64
        TP, FP, FN of BC and TC.
    scores : mapping of str to float
        `precision_bc` … `mean_f1` of this pair alone; NaN where there is nothing to divide by.
    detection_f1 : float
        F1 regardless of class; NaN likewise.
    true_purity, predicted_purity : float
        0 … 1; NaN without cells.
    """

    index: int
    truth: GroundTruthPair
    predicted: CellPoints
    match: Match
    counts: NDArray[np.int64]
    scores: Mapping[str, float]
    detection_f1: float
    true_purity: float
    predicted_purity: float


@dataclass(frozen=True)
class Evaluation:
    """Everything about one set of predictions against one truth.

    Attributes
    ----------
    name : str
        What the predictions are called.
    truth : GroundTruth
    challenge : mapping of str to float
        The challenge's rounded numbers under its names: `Pre/BC`, …, `mF1`.
    figures : mapping of str to Estimate
        `precision_bc`, `recall_bc`, `f1_bc`, …, `mean_f1`, unrounded, with 95 % intervals.
    counts : (2, 3) int64
        TP, FP, FN of BC and TC over all pairs.
    pairs : tuple of PairResult
    organs : tuple of Subgroup
        Empty where organs are unknown.
    regions : tuple of Subgroup
        `cancer area`, `background`; empty without tissue annotations.
    confusion : Confusion
        Classes among cells matched regardless of class, and detection regardless of class.
    confidence : Confidence
        Curves over confidence and best thresholds, by class.
    calibration : mapping of str to Calibration
        `all`, `BC`, `TC`.
    distances : mapping of str to DistanceErrors
        `all`, `BC`, `TC`.
    purity : Purity
    tissue : tuple of TissueScore
        `all`, then by organ; empty without predicted tissue maps.
    resamples, seed : int
        Of the bootstrap.
    """

    name: str
    truth: GroundTruth
    challenge: Mapping[str, float]
    figures: Mapping[str, Estimate]
    counts: NDArray[np.int64]
    pairs: tuple[PairResult, ...]
    organs: tuple[Subgroup, ...]
    regions: tuple[Subgroup, ...]
    confusion: Confusion
    confidence: Confidence
    calibration: Mapping[str, Calibration]
    distances: Mapping[str, DistanceErrors]
    purity: Purity
    tissue: tuple[TissueScore, ...]
    resamples: int
    seed: int

    @property
    def pair_counts(self) -> NDArray[np.int64]:
        """(pairs, 2, 3) Counts of every pair."""
        return np.stack([pair.counts for pair in self.pairs])

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON's types: the challenge's names and the unrounded ones side by side on top.

        An interval is `{"value", "low", "high"}`; null stands for undefined.
        """
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "truth": {
                "source": self.truth.source,
                "pairs": len(self.truth),
                "cells": sum(map(len, self.truth.points)),
            },
            "predictions": {
                "cells": sum(len(pair.predicted) for pair in self.pairs),
                "pairs_without_cells": [pair.index for pair in self.pairs if not len(pair.predicted)],
            },
            "settings": {
                "match_distance_px": MATCH_DISTANCE,
                "resamples": self.resamples,
                "resampled": self.truth.unit,
                "seed": self.seed,
                "confidence_level": CONFIDENCE_LEVEL,
            },
            **self.challenge,
            **self.figures,
        }
        for name in ("counts", "organs", "regions", "confusion", "confidence", "calibration", "distances"):
            document[name] = getattr(self, name)
        document["purity"] = {"pairs": self.purity.pairs, "figures": self.purity.figures}
        document["tissue"] = self.tissue
        document["pairs"] = [_pair_json(pair) for pair in self.pairs]
        return {key: jsonable(value) for key, value in document.items()}


def _pair_json(pair: PairResult) -> dict[str, Any]:
    """A pair without its cells, which the predictions' file has."""
    return {
        "index": pair.index,
        "name": pair.truth.name,
        "organ": pair.truth.organ,
        "counts": pair.counts,
        **pair.scores,
        "detection_f1": pair.detection_f1,
        "true_purity": pair.true_purity,
        "predicted_purity": pair.predicted_purity,
    }
