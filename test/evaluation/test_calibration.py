from __future__ import annotations

import numpy as np
import pytest
from evaluation_cases import BC, TC, cells

from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.calibration import calibration
from softctm.evaluation.matching import CellTable, match_tables


def analyze(predicted, true):
    tables = CellTable.of(predicted), CellTable.of(true)
    return calibration(match_tables(*tables), tables[0], Bootstrap(len(true), 100))


def test_bins_and_errors_by_hand():
    true = [cells((10, 10, BC), (10, 110, BC), (10, 210, TC))]
    predicted = [
        cells(
            (10, 10, BC, 0.9),
            (10, 110, BC, 0.95),
            (10, 310, BC, 0.92),
            (10, 210, TC, 0.5),
            (10, 410, TC, 0.1),
        )
    ]
    parts = analyze(predicted, true)
    assert list(parts) == ["all", "BC", "TC"]
    assert parts["all"].predictions.tolist() == [0, 1, 0, 0, 0, 1, 0, 0, 0, 3]
    assert parts["BC"].predictions.tolist() == [0] * 9 + [3]
    assert parts["BC"].precision.value[9] == pytest.approx(2 / 3)
    assert parts["BC"].mean_score[9] == pytest.approx((0.9 + 0.95 + 0.92) / 3)
    assert np.isnan(parts["BC"].precision.value[:9]).all()
    value = {name: figure.value for name, figure in parts["all"].figures.items()}
    assert value["expected_calibration_error"] == pytest.approx((abs(2.77 - 2) + abs(0.5 - 1) + 0.1) / 5)
    assert value["overconfidence"] == pytest.approx((2.77 + 0.5 + 0.1 - 3) / 5)
    assert value["brier"] == pytest.approx((0.01 + 0.0025 + 0.8464 + 0.25 + 0.01) / 5)


def test_scores_at_the_borders_of_bins():
    scores = [0.0, 0.1, 0.3, 0.7, 0.9, 1.0]
    parts = analyze([cells(*[(50 * i, 5, TC, score) for i, score in enumerate(scores)])], [cells()])
    assert parts["TC"].predictions.tolist() == [1, 1, 0, 1, 0, 0, 0, 1, 0, 2]


def test_scores_that_are_probabilities_are_found_calibrated():
    random = np.random.default_rng(0)
    places = [
        (x, y) for x in range(20, 1000, 40) for y in range(20, 1000, 40)
    ]  # one true cell in reach at most
    predicted, true, squared = [], [], []
    for _ in range(16):
        scores = random.uniform(0, 1, len(places))
        is_tp = random.random(len(places)) < scores
        predicted.append(cells(*[(x, y, BC, s) for (x, y), s in zip(places, scores, strict=True)]))
        true.append(cells(*[(x, y, BC) for (x, y), h in zip(places, is_tp, strict=True) if h]))
        squared.append((scores - is_tp) ** 2)
    figures = analyze(predicted, true)["BC"].figures
    assert figures["expected_calibration_error"].value < 0.02
    assert abs(figures["overconfidence"].value) < 0.01
    assert figures["brier"].value == pytest.approx(np.mean(squared), abs=1e-6)
