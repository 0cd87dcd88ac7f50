from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_cases import BC, TC, cells, imperfect, random_cells

from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.purity import purity, tumor_purity


def mixed(tumor, background):
    return cells(*[(i, 0, TC) for i in range(tumor)], *[(i, 9, BC) for i in range(background)])


def test_purity_of_a_pair():
    assert tumor_purity(mixed(3, 1)) == 0.75
    assert tumor_purity(mixed(0, 5)) == 0.0
    assert math.isnan(tumor_purity(cells()))


def test_by_hand_with_pairs_that_have_no_purity():
    predicted = [mixed(1, 1), mixed(3, 1), cells(), mixed(1, 0)]
    true = [mixed(1, 3), mixed(1, 1), mixed(1, 1), cells()]
    result = purity(predicted, true, Bootstrap(4, 100))
    assert result.pairs == 2
    assert result.figures["mean_absolute_error"].value == pytest.approx(0.25)
    assert result.figures["bias"].value == pytest.approx(0.25)
    assert result.figures["rms_error"].value == pytest.approx(0.25)
    assert result.figures["correlation"].value == pytest.approx(1.0)
    # equal up to a shift of d = 1/4, variance s² = 1/64 each: 2 s² / (2 s² + d²)
    assert result.figures["concordance"].value == pytest.approx((2 / 64) / (2 / 64 + 1 / 16))


def test_correlation_agrees_with_numpy():
    random = np.random.default_rng(2)
    true = [random_cells(random, int(n)) for n in random.integers(5, 60, 30)]
    predicted = [imperfect(random, points) for points in true]
    result = purity(predicted, true, Bootstrap(30, 1000))
    claimed, actual = (np.array([tumor_purity(points) for points in pairs]) for pairs in (predicted, true))
    assert result.figures["correlation"].value == pytest.approx(np.corrcoef(claimed, actual)[0, 1])
    assert result.figures["mean_absolute_error"].value == pytest.approx(np.abs(claimed - actual).mean())
    for figure in result.figures.values():
        assert figure.low <= figure.value <= figure.high


def test_one_purity_for_all_has_no_correlation():
    result = purity([mixed(1, 9)] * 3, [mixed(1, 9)] * 3, Bootstrap(3, 10))
    assert result.figures["mean_absolute_error"].value == 0.0
    assert math.isnan(result.figures["correlation"].value)
