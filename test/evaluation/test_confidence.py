from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_cases import BC, TC, cells, crowded_cells, imperfect, random_cells, take
from hypothesis import given, settings
from hypothesis import strategies as st

from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.confidence import THRESHOLDS, confidence, counts_over_thresholds
from softctm.evaluation.matching import CellTable, match_tables
from softctm.evaluation.scores import count_pairs, score


def tables_of(predicted, true):
    tables = CellTable.of(predicted), CellTable.of(true)
    return match_tables(*tables), *tables


def cut(predicted, threshold):
    return [take(points, points.score >= np.float32(threshold)) for points in predicted]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(crowded_cells(), crowded_cells()), min_size=1, max_size=3))
def test_one_match_serves_all_thresholds(pairs):
    predicted, true = [p for p, _ in pairs], [t for _, t in pairs]
    counts = counts_over_thresholds(*tables_of(predicted, true), len(pairs))
    assert counts.shape == (len(pairs), 101, 2, 3)
    for i in (0, 20, 21, 50, 51, 70, 71, 100):
        assert (counts[:, i] == count_pairs(cut(predicted, THRESHOLDS[i]), true)).all(), THRESHOLDS[i]


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**31))
def test_best_threshold_beats_every_other_score(seed):
    random = np.random.default_rng(seed)
    true = [random_cells(random, 40) for _ in range(3)]
    predicted = [imperfect(random, points) for points in true]
    found = confidence(*tables_of(predicted, true), Bootstrap(3, 50))
    for short in ("BC", "TC"):
        curve, name = found.curves[short], f"f1_{short.lower()}"
        at_best = curve.at_best["f1"].value
        assert score(count_pairs(cut(predicted, curve.best_threshold.value), true)).unrounded[name] == (
            pytest.approx(at_best)
        )
        for threshold in np.concatenate([points.score for points in predicted]):
            assert score(count_pairs(cut(predicted, threshold), true)).unrounded[name] <= at_best + 1e-12
    both = [found.curves[short].at_best["f1"].value for short in ("BC", "TC")]
    assert found.mean_f1_at_best.value == pytest.approx(np.mean(both))


def test_curves_by_hand():
    predicted = [cells((10, 10, TC, 0.9), (200, 10, TC, 0.6), (400, 10, TC, 0.3))]
    true = [cells((10, 10, TC), (400, 10, TC))]
    curve = confidence(*tables_of(predicted, true), Bootstrap(1, 10)).curves["TC"]
    at = {round(float(t), 2): i for i, t in enumerate(curve.thresholds)}
    assert curve.precision.value[at[0.3]] == pytest.approx(2 / 3)
    assert curve.precision.value[at[0.31]] == pytest.approx(1 / 2)
    assert curve.precision.value[at[0.61]] == 1.0
    assert curve.recall.value[at[0.9]] == 1 / 2
    assert math.isnan(curve.precision.value[at[0.91]])
    assert curve.recall.value[at[0.91]] == 0.0
    assert curve.f1.value[at[0.91]] == 0.0
    # F1 is 2/3 for the highest alone, 1/2 for two, 4/5 for all
    assert curve.best_threshold.value == 0.3
    assert curve.at_best["f1"].value == pytest.approx(4 / 5)


def test_of_equally_good_thresholds_the_highest():
    # one of one (F1 2/3) and two of four (F1 2/3)
    predicted = [cells((10, 10, BC, 0.8), (300, 1, BC, 0.5), (400, 1, BC, 0.4), (10, 200, BC, 0.2))]
    true = [cells((10, 10, BC), (10, 200, BC))]
    assert confidence(*tables_of(predicted, true), Bootstrap(1, 5)).curves["BC"].best_threshold.value == 0.8


def test_without_predictions_there_is_no_best_threshold():
    found = confidence(*tables_of([cells()], [cells((1, 1, BC))]), Bootstrap(1, 5))
    assert math.isnan(found.curves["BC"].best_threshold.value)
    assert found.curves["BC"].at_best["f1"].value == 0.0
