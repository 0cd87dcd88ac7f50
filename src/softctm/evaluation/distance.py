"""How far true positives lie from the annotated point, and whether they lie to one side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.evaluation.bootstrap import Bootstrap, Estimate
from softctm.evaluation.matching import MATCH_DISTANCE, CellTable, Match
from softctm.evaluation.scores import CLASSES, ratio

_SQUARES = MATCH_DISTANCE**2 + 1
_DISTANCES = np.sqrt(np.arange(_SQUARES))
PERCENTILES = (50, 90)


@dataclass(frozen=True)
class DistanceErrors:
    """Distances between true positives and their true cells, of one class or of both together.

    Attributes
    ----------
    true_positives : int
    histogram : (15,) int64
        Their number by distance: 0 … 1, 1 … 2, … 14 … 15 px, each without its upper border but the last.
    figures : mapping of str to Estimate
        Pixels of 0.2 µm: `mean`, `median`, `percentile_90` (the smallest distance that at least that share of
        them keeps), `rms`; `bias_x`, `bias_y`: mean of predicted − true position.
    """

    true_positives: int
    histogram: NDArray[np.int64]
    figures: Mapping[str, Estimate]


def distance_errors(
    matched: Match, predicted: CellTable, true: CellTable, bootstrap: Bootstrap
) -> dict[str, DistanceErrors]:
    """Analyze a same-class match: `all`, `BC` and `TC`."""
    sums = _pair_sums(matched, predicted, true, bootstrap.pairs)
    parts = {"all": sums.sum(axis=1)}
    parts |= {cell_class.short: sums[:, i] for i, cell_class in enumerate(CLASSES)}
    errors = {}
    for name, part in parts.items():
        pooled = part[:, :_SQUARES].sum(axis=0)
        histogram = np.histogram(_DISTANCES, MATCH_DISTANCE, (0, MATCH_DISTANCE), weights=pooled)[0]
        figures = bootstrap.estimates(part, _figures)
        errors[name] = DistanceErrors(int(pooled.sum()), histogram.astype(np.int64), figures)
    return errors


def _pair_sums(matched: Match, predicted: CellTable, true: CellTable, pairs: int) -> NDArray[np.float64]:
    """(pairs, 2, 228): true positives by squared distance 0 … 225, then Σ of the offsets in x and y.

    Positions are integers, so 226 squared distances are all there are, and medians of resamples are exact.
    """
    is_tp = matched.is_tp
    partner = matched.true_cell[is_tp]
    dx, dy = predicted.x[is_tp] - true.x[partner], predicted.y[is_tp] - true.y[partner]
    group = predicted.pair[is_tp] * len(CLASSES) + predicted.label[is_tp] - CLASSES[0]
    groups = pairs * len(CLASSES)
    squares = np.bincount(group * _SQUARES + dx**2 + dy**2, minlength=groups * _SQUARES)
    offsets = np.stack([np.bincount(group, offset, groups) for offset in (dx, dy)], axis=-1)
    joined = np.concatenate([squares.reshape(groups, _SQUARES), offsets], axis=-1)
    return joined.reshape(pairs, len(CLASSES), -1)


def _figures(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """All figures of sums (…, 228)."""
    number = sums[..., :_SQUARES]
    total = number.sum(axis=-1)
    reached = number.cumsum(axis=-1)
    median, far = (
        np.where(total > 0, _DISTANCES[(reached >= total[..., None] * percent / 100).argmax(axis=-1)], np.nan)
        for percent in PERCENTILES
    )
    return {
        "mean": ratio(number @ _DISTANCES, total, np.nan),
        "median": median,
        "percentile_90": far,
        "rms": np.sqrt(ratio(number @ _DISTANCES**2, total, np.nan)),
        "bias_x": ratio(sums[..., _SQUARES], total, np.nan),
        "bias_y": ratio(sums[..., _SQUARES + 1], total, np.nan),
    }
