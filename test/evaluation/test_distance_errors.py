from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_cases import BC, TC, cells, imperfect, random_cells

from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.distance import distance_errors
from softctm.evaluation.matching import CellTable, match_tables


def analyze(predicted, true):
    tables = CellTable.of(predicted), CellTable.of(true)
    matched = match_tables(*tables)
    return distance_errors(matched, *tables, Bootstrap(len(true), 100)), matched, tables[0]


def test_by_hand():
    true = [cells((100, 100, BC), (300, 100, BC), (500, 100, TC))]
    predicted = [cells((103, 104, BC), (300, 100, BC), (509, 88, TC), (900, 900, TC))]
    errors, _, _ = analyze(predicted, true)
    assert (errors["all"].true_positives, errors["BC"].true_positives, errors["TC"].true_positives) == (
        3,
        2,
        1,
    )
    value = {name: figure.value for name, figure in errors["all"].figures.items()}
    assert value["mean"] == pytest.approx(20 / 3)
    assert value["median"] == 5.0
    assert value["percentile_90"] == 15.0
    assert value["rms"] == pytest.approx(math.sqrt(250 / 3))
    assert value["bias_x"] == pytest.approx((3 + 0 + 9) / 3)
    assert value["bias_y"] == pytest.approx((4 + 0 - 12) / 3)
    assert errors["all"].histogram.tolist() == [1, 0, 0, 0, 0, 1] + [0] * 8 + [1]


def test_agrees_with_numpy_over_many_tp():
    random = np.random.default_rng(5)
    true = [random_cells(random, 150) for _ in range(4)]
    errors, matched, predicted = analyze([imperfect(random, points) for points in true], true)
    for name, label in (("BC", BC), ("TC", TC)):
        distance = matched.distance[matched.is_tp & (predicted.label == label)]
        value = {key: figure.value for key, figure in errors[name].figures.items()}
        assert value["mean"] == pytest.approx(distance.mean())
        assert value["median"] == pytest.approx(np.percentile(distance, 50, method="inverted_cdf"))
        assert value["percentile_90"] == pytest.approx(np.percentile(distance, 90, method="inverted_cdf"))
        assert errors[name].histogram.tolist() == np.histogram(distance, 15, (0, 15))[0].tolist()


def test_without_tp_there_is_no_distance():
    errors, _, _ = analyze([cells((1, 1, BC))], [cells((900, 1, BC))])
    assert errors["all"].true_positives == 0
    assert all(math.isnan(figure.value) for figure in errors["all"].figures.values())
