"""Uncertainty by resampling patients, or pairs where patients are unknown.

Every figure of the evaluation is a function of sums over pairs. So what a pair contributes is counted once,
and a resample only weighs the pairs anew: one matrix product gives the sums of all resamples. Pairs of one
patient are alike, so that they are drawn together; by themselves they would make intervals too narrow.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE_LEVEL = 0.95
SEED = 2023
_BLOCK = 1000


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval.

    NaN where undefined; the interval also where no resamples were asked for, or where fewer than two patients
    have a part in the figure: a single one says nothing about others.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Band:
    """A curve with its pointwise 95 % interval: three arrays of one shape."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def __getitem__(self, index: Any) -> Band:
        return Band(self.value[index], self.low[index], self.high[index])


class Bootstrap:
    """Resamples with replacement, the same for every figure, which makes comparisons paired.

    Parameters
    ----------
    pairs : int
        Number of pairs n, at least 1.
    resamples : int
        Number of resamples R; 0 for no intervals.
    seed : int
        The same seed gives the same resamples.
    unit_of : sequence of str, optional
        What each pair is drawn with, such as its patient: as many of these units are drawn as there are. By
        default each pair by itself.
    """

    def __init__(
        self,
        pairs: int,
        resamples: int = RESAMPLES,
        seed: int = SEED,
        unit_of: Sequence[str] | None = None,
    ) -> None:
        random = np.random.default_rng(seed)
        self.pairs, self.resamples, self.seed = pairs, resamples, seed
        names = range(pairs) if unit_of is None else unit_of
        number = {name: index for index, name in enumerate(dict.fromkeys(names))}
        self._unit, units = np.array([number[name] for name in names]), len(number)
        self.weights = np.empty((resamples, pairs), np.uint16)
        """(R, n) How often each resample holds each pair."""
        for start in range(0, resamples, _BLOCK):
            rows = min(_BLOCK, resamples - start)
            drawn = random.integers(units, size=(rows, units)) + np.arange(rows)[:, None] * units
            times = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
            self.weights[start : start + rows] = times[:, self._unit]

    def sums(self, per_pair: NDArray[np.generic]) -> NDArray[np.float64]:
        """Sums over the pairs of every resample: (n, …) in, (R, …) float64 out."""
        flat = np.asarray(per_pair, np.float64).reshape(self.pairs, -1)
        total = np.empty((self.resamples, flat.shape[1]))
        for start in range(0, self.resamples, _BLOCK):
            block = slice(start, start + _BLOCK)
            total[block] = self.weights[block].astype(np.float64) @ flat
        return total.reshape(self.resamples, *per_pair.shape[1:])

    def estimates(
        self,
        per_pair: NDArray[np.generic],
        figures: Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    ) -> dict[str, Estimate]:
        """Figures with intervals.

        Parameters
        ----------
        per_pair : (n, …) array
            What each pair contributes.
        figures : callable
            Takes sums (…) with any leading axes and gives arrays of those leading axes by name.
        """
        values = figures(np.asarray(per_pair, np.float64).sum(axis=0))
        resampled = figures(self._varied_sums(per_pair))
        named = {}
        for name, value in values.items():
            low, high = percentile_interval(resampled[name])
            named[name] = Estimate(float(value), float(low), float(high))
        return named

    def band(
        self,
        per_pair: NDArray[np.generic],
        curve: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    ) -> Band:
        """A curve with its interval; `curve` takes sums with any leading axes and gives (…, k)."""
        value = curve(np.asarray(per_pair, np.float64).sum(axis=0))
        low, high = percentile_interval(curve(self._varied_sums(per_pair)))
        return Band(value, low, high)

    def _varied_sums(self, per_pair: NDArray[np.generic]) -> NDArray[np.float64]:
        """`sums`, or none at all where fewer than two units contribute, which resamples cannot vary."""
        contributes = np.any(np.reshape(per_pair, (self.pairs, -1)) != 0, axis=1)
        if len(set(self._unit[contributes].tolist())) < 2:
            return np.empty((0, *per_pair.shape[1:]))
        return self.sums(per_pair)


def percentile_interval(resampled: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of the interval over the first axis, undefined resamples left out; NaN where none is left."""
    if not len(resampled):
        nothing = np.full(resampled.shape[1:], np.nan)
        return nothing, nothing
    tail = (1 - CONFIDENCE_LEVEL) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
        undefined = bool(np.isnan(resampled).any())
        quantile = np.nanquantile if undefined else np.quantile
        low, high = quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high
