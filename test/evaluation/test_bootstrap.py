from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from softctm.evaluation.bootstrap import Bootstrap, percentile_interval
from softctm.evaluation.scores import named_scores, ratio


def test_every_resample_draws_as_many_pairs_as_there_are():
    weights = Bootstrap(37, 1500).weights
    assert weights.shape == (1500, 37)
    assert (weights.sum(axis=1) == 37).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(37), abs=0.15)
    # drawn with replacement: a pair is left out of a resample with probability (1 − 1/n)ⁿ
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 37) ** 37, abs=0.01)


def test_the_same_seed_gives_the_same_resamples_and_another_does_not():
    assert (Bootstrap(20, 50, seed=1).weights == Bootstrap(20, 50, seed=1).weights).all()
    assert (Bootstrap(20, 50, seed=1).weights != Bootstrap(20, 50, seed=2).weights).any()


def test_sums_are_those_of_really_repeated_pairs():
    counts = np.random.default_rng(0).integers(0, 50, (30, 2, 3))
    bootstrap = Bootstrap(30, 1100)
    sums = bootstrap.sums(counts)
    for resample in (0, 999, 1000, 1099):
        repeated = np.repeat(counts, bootstrap.weights[resample], axis=0)
        assert (sums[resample] == repeated.sum(axis=0)).all()


def test_interval_agrees_with_scipys_bootstrap():
    values = np.random.default_rng(3).gamma(2.0, size=150)
    ours = Bootstrap(150).estimates(values[:, None], lambda sums: {"mean": sums[..., 0] / 150})["mean"]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", random_state=np.random.default_rng(1)
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_interval_of_a_ratio_agrees_with_scipys_paired_bootstrap():
    random = np.random.default_rng(4)
    counts = random.integers(0, 40, (80, 2, 3))
    ours = Bootstrap(80).estimates(counts, named_scores)["mean_f1"]

    def mean_f1(index):
        pooled = counts[index.astype(int)].sum(axis=0)
        return float(np.mean([2 * h / (2 * h + a + m) for h, a, m in pooled]))

    theirs = stats.bootstrap(
        (np.arange(80),),
        mean_f1,
        n_resamples=4000,
        method="percentile",
        vectorized=False,
        random_state=random,
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.1 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.1 * width)


def test_undefined_resamples_are_left_out():
    low, high = percentile_interval(np.array([[np.nan, np.nan], [1.0, np.nan], [3.0, np.nan]]))
    assert (low[0], high[0]) == (pytest.approx(1.05), pytest.approx(2.95))
    assert np.isnan([low[1], high[1]]).all()


def test_without_resamples_there_are_values_but_no_intervals():
    counts = np.ones((4, 2, 3), int)
    estimate = Bootstrap(4, 0).estimates(counts, named_scores)["mean_f1"]
    assert estimate.value == 0.5
    assert np.isnan([estimate.low, estimate.high]).all()


def test_equal_pairs_leave_no_uncertainty():
    estimate = Bootstrap(10, 200).estimates(np.full((10, 2, 3), 7), named_scores)["f1_tc"]
    assert estimate.value == estimate.low == estimate.high == 0.5


def test_pairs_of_a_unit_are_drawn_together_and_give_the_units_interval():
    values = np.random.default_rng(5).gamma(2.0, size=40)
    several = np.repeat(values, 3)
    units = [f"patient {index // 3}" for index in range(120)]

    def mean(sums):
        return {"mean": sums[..., 0] / sums[..., 1]}

    together = Bootstrap(120, unit_of=units).estimates(np.stack([several, np.ones(120)], 1), mean)["mean"]
    alone = Bootstrap(40).estimates(np.stack([values, np.ones(40)], 1), mean)["mean"]
    assert together.value == pytest.approx(alone.value)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    weights = Bootstrap(120, 50, unit_of=units).weights
    assert (weights.reshape(50, 40, 3) == weights.reshape(50, 40, 3)[..., :1]).all()
    assert (weights.sum(axis=1) == 120).all()


def test_a_single_patient_makes_no_interval():
    per_pair = np.array([[1, 2], [3, 4], [0, 0], [0, 0]])

    def figures(sums):
        return {"share": ratio(sums[..., 0], sums[..., 1], np.nan)}

    alone = Bootstrap(4, 100, unit_of=["a", "a", "b", "c"])
    one = alone.estimates(per_pair, figures)["share"]
    assert one.value == 4 / 6
    assert np.isnan([one.low, one.high]).all()
    curve = alone.band(per_pair, lambda sums: sums)
    assert curve.value.tolist() == [4, 6]
    assert np.isnan([curve.low, curve.high]).all()
    two = Bootstrap(4, 100, unit_of=["a", "b", "b", "c"]).estimates(per_pair, figures)["share"]
    assert two.low < two.value < two.high
