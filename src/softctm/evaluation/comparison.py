"""Which of several predictions is better, and how surely: the challenge report's ranking analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.evaluation.bootstrap import Bootstrap, Estimate, percentile_interval
from softctm.evaluation.jsonable import jsonable
from softctm.evaluation.scores import named_scores


@dataclass(frozen=True)
class Ranked:
    """One set of predictions among the others.

    Attributes
    ----------
    name : str
    mean_f1 : Estimate
        Unrounded.
    rank : int
        By mean F1, 1 the best; equal ones share the better rank.
    rank_distribution : (k,) float64
        Share of resamples in which it has rank 1 … k; adds up to 1.
    mean_rank : float
        Mean over the resamples.
    """

    name: str
    mean_f1: Estimate
    rank: int
    rank_distribution: NDArray[np.float64]
    mean_rank: float


@dataclass(frozen=True)
class PairwiseComparison:
    """Two sets of predictions on the same resamples.

    Attributes
    ----------
    first, second : str
    difference : Estimate
        Mean F1 of the first − of the second.
    probability : float
        That the first outranks the second: the share of resamples in which it does, equal ones counted half.
    """

    first: str
    second: str
    difference: Estimate
    probability: float


@dataclass(frozen=True)
class Comparison:
    """Ranking of k sets of predictions, in the order given, and every two of them against each other."""

    ranking: tuple[Ranked, ...]
    pairwise: tuple[PairwiseComparison, ...]

    @property
    def names(self) -> list[str]:
        """Names in the order given."""
        return [ranked.name for ranked in self.ranking]

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON's types."""
        document: dict[str, Any] = jsonable(self)
        return document


def compare(names: Sequence[str], counts: Sequence[NDArray[np.int64]], bootstrap: Bootstrap) -> Comparison:
    """Rank predictions by mean F1.

    Parameters
    ----------
    names : sequence of k str
    counts : sequence of k (pairs, 2, 3) int64 arrays
        All of the same pairs in the same order: each resample draws the same pairs for all, so that what is
        hard for all does not blur their difference.
    bootstrap : Bootstrap
        With at least one resample.
    """
    if len(names) != len(counts) or len(names) < 2:
        raise ValueError("a comparison takes two or more sets of predictions, each with its name")
    if not bootstrap.resamples:
        raise ValueError("a comparison takes at least one resample")
    value = np.array([named_scores(c.sum(axis=0))["mean_f1"] for c in counts])
    resampled = np.stack([named_scores(bootstrap.sums(c))["mean_f1"] for c in counts], axis=-1)
    ranks = _ranks(resampled)
    low, high = percentile_interval(resampled)
    ranking = tuple(
        Ranked(
            name,
            Estimate(float(value[i]), float(low[i]), float(high[i])),
            int(_ranks(value[None])[0, i]),
            np.bincount(ranks[:, i] - 1, minlength=len(names)) / len(ranks),
            float(ranks[:, i].mean()),
        )
        for i, name in enumerate(names)
    )
    pairwise = tuple(
        _compare_two((names[i], names[j]), value[i] - value[j], resampled[:, i] - resampled[:, j])
        for i in range(len(names))
        for j in range(i + 1, len(names))
    )
    return Comparison(ranking, pairwise)


def _compare_two(
    names: tuple[str, str], difference: float, resampled: NDArray[np.float64]
) -> PairwiseComparison:
    """One against one."""
    low, high = percentile_interval(resampled)
    probability = ((resampled > 0).mean() + (resampled >= 0).mean()) / 2
    return PairwiseComparison(
        *names, Estimate(float(difference), float(low), float(high)), float(probability)
    )


def _ranks(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """1 + the number of better ones in the row, (R, k)."""
    better: NDArray[np.intp] = (values[:, None, :] > values[:, :, None]).sum(axis=-1)
    return better + 1
