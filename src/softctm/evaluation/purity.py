"""Tumor purity, TC / (TC + BC): what a pathologist uses the cells for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.evaluation.bootstrap import Bootstrap, Estimate
from softctm.evaluation.scores import ratio
from softctm.points import CellClass, CellPoints


@dataclass(frozen=True)
class Purity:
    """Predicted against true purity.

    Attributes
    ----------
    predicted, true : (pairs,) float64
        0 … 1; NaN for a pair without cells.
    pairs : int
        Pairs that have both; the figures are over these.
    figures : mapping of str to Estimate
        `mean_absolute_error`, `bias` (predicted − true), `rms_error`, `correlation` (Pearson's),
        `concordance` (Lin's: 1 only where both are equal).
    """

    predicted: NDArray[np.float64]
    true: NDArray[np.float64]
    pairs: int
    figures: Mapping[str, Estimate]


def tumor_purity(points: CellPoints) -> float:
    """Share of tumor cells among the cells, 0 … 1; NaN without cells."""
    return points.count(CellClass.TUMOR) / len(points) if len(points) else float("nan")


def purity(predicted: Sequence[CellPoints], true: Sequence[CellPoints], bootstrap: Bootstrap) -> Purity:
    """Compare the purity of every pair."""
    claimed, actual = (np.array([tumor_purity(points) for points in pairs]) for pairs in (predicted, true))
    both = ~np.isnan(claimed) & ~np.isnan(actual)
    p, t = np.where(both, claimed, 0.0), np.where(both, actual, 0.0)
    sums = np.stack([both.astype(np.float64), p, t, p * p, t * t, p * t, np.abs(p - t)], axis=-1)
    return Purity(claimed, actual, int(both.sum()), bootstrap.estimates(sums, _figures))


def _figures(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """All figures of sums (…, 7)."""
    n = sums[..., 0]
    p, t, pp, tt, pt, error = (ratio(sums[..., i], n, np.nan) for i in range(1, 7))
    # Rounding may leave a variance of equal values just beside 0; such a one has no correlation.
    var_p, var_t = (np.where(v > 1e-12, v, 0.0) for v in (pp - p * p, tt - t * t))
    covariance = pt - p * t
    return {
        "mean_absolute_error": error,
        "bias": p - t,
        "rms_error": np.sqrt(np.maximum(pp - 2 * pt + tt, 0.0)),
        "correlation": ratio(covariance, np.sqrt(var_p * var_t), np.nan),
        "concordance": ratio(2 * covariance, var_p + var_t + (p - t) ** 2, np.nan),
    }
