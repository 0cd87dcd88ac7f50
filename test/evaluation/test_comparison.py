from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.comparison import compare
from softctm.evaluation.scores import named_scores

BOOTSTRAP = Bootstrap(25, 400)


def some_counts(seed, pairs=25):
    return np.random.default_rng(seed).integers(0, 40, (pairs, 2, 3))


def better_than(counts, by=1):
    """More TP and fewer FN in every pair."""
    return counts + np.array([by, 0, 0])


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=4))
def test_ranks_and_pairwise_results_agree_with_counting_resamples_one_by_one(seeds):
    counts = [some_counts(seed) for seed in seeds]
    result = compare([f"run {i}" for i in range(len(seeds))], counts, BOOTSTRAP)
    f1 = np.array(
        [
            [named_scores(np.repeat(c, weights, axis=0).sum(axis=0))["mean_f1"] for c in counts]
            for weights in BOOTSTRAP.weights
        ]
    )
    ranks = np.array([[1 + sum(other > own for other in row) for own in row] for row in f1])
    for i, ranked in enumerate(result.ranking):
        assert ranked.rank_distribution.sum() == pytest.approx(1)
        assert ranked.rank_distribution.tolist() == pytest.approx(
            [(ranks[:, i] == place).mean() for place in range(1, len(seeds) + 1)]
        )
        assert ranked.mean_rank == pytest.approx(ranks[:, i].mean())
        assert ranked.mean_f1.value == pytest.approx(float(named_scores(counts[i].sum(axis=0))["mean_f1"]))
    assert len(result.pairwise) == len(seeds) * (len(seeds) - 1) // 2
    for pair in result.pairwise:
        i, j = result.names.index(pair.first), result.names.index(pair.second)
        wins = (f1[:, i] > f1[:, j]).mean() + (f1[:, i] == f1[:, j]).mean() / 2
        assert pair.probability == pytest.approx(wins)
        assert pair.difference.low <= pair.difference.high


def test_what_is_better_in_every_pair_wins_every_resample_though_intervals_overlap():
    counts = some_counts(1)
    result = compare(["worse", "better"], [counts, better_than(counts)], BOOTSTRAP)
    worse, better = result.ranking
    assert (worse.rank, better.rank) == (2, 1)
    assert worse.rank_distribution.tolist() == [0, 1]
    assert result.pairwise[0].probability == 0.0
    assert result.pairwise[0].difference.high < 0
    assert worse.mean_f1.high > better.mean_f1.low


def test_equal_predictions_draw():
    result = compare(["a", "b"], [some_counts(1), some_counts(1)], BOOTSTRAP)
    assert [ranked.rank for ranked in result.ranking] == [1, 1]
    assert result.pairwise[0].probability == 0.5
    difference = result.pairwise[0].difference
    assert difference.value == difference.low == difference.high == 0


def test_one_alone_or_without_resamples_cannot_be_compared():
    with pytest.raises(ValueError, match="two or more"):
        compare(["a"], [some_counts(1)], BOOTSTRAP)
    with pytest.raises(ValueError, match="one resample"):
        compare(["a", "b"], [some_counts(1), some_counts(2)], Bootstrap(25, 0))
