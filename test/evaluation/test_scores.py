from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from evaluation_cases import BC, TC, cells
from hypothesis import given
from hypothesis import strategies as st

from softctm.evaluation.predictions import load_predictions
from softctm.evaluation.scores import challenge_scores, count_pairs, precision_recall_f1, score
from softctm.evaluation.truth import load_truth


def test_known_answer(shared):
    folder = shared / "reference/evaluation"
    truth = load_truth(folder / "cell_gt.json")
    predictions = load_predictions(folder / "cell_classification.json", len(truth))
    scores = score(count_pairs(predictions, truth.points))
    assert scores.challenge == json.loads((folder / "scores.json").read_text())
    for name, value in scores.challenge.items():
        kind, _, short = name.partition("/")
        own = {"Pre": "precision_", "Rec": "recall_", "F1": "f1_", "mF1": "mean_f1"}[kind] + short.lower()
        assert scores.unrounded[own] == pytest.approx(value, abs=6e-5)


def test_by_hand():
    scores = score(np.array([[[3, 1, 2], [0, 0, 0]], [[1, 0, 0], [5, 5, 0]]]))
    assert scores.counts.tolist() == [[4, 1, 2], [5, 5, 0]]
    assert scores.unrounded == pytest.approx(
        {
            "precision_bc": 4 / 5,
            "recall_bc": 4 / 6,
            "f1_bc": 8 / 11,
            "precision_tc": 1 / 2,
            "recall_tc": 1.0,
            "f1_tc": 2 / 3,
            "mean_f1": (8 / 11 + 2 / 3) / 2,
        }
    )
    assert scores.challenge["F1/BC"] == 0.7273
    assert scores.challenge["mF1"] == (0.7273 + 0.6667) / 2


def test_counts_are_pooled_not_averaged_over_pairs():
    predicted = [cells((10, 10, BC)), cells(*[(50 * i, 500, BC) for i in range(9)])]
    true = [cells((900, 900, BC)), predicted[1]]
    assert score(count_pairs(predicted, true)).unrounded["precision_bc"] == pytest.approx(9 / 10)


def test_mean_f1_is_of_the_rounded_f1s():
    # F1 2/3 and 8/11: rounded 0.6667 and 0.7273, mean 0.697; the unrounded mean is 0.69697
    numbers = challenge_scores(np.array([[4, 1, 2], [5, 5, 0]]))
    assert numbers["mF1"] == pytest.approx(0.6970, abs=1e-12)
    assert numbers["mF1"] != pytest.approx((8 / 11 + 2 / 3) / 2, abs=1e-6)


def test_a_tie_of_the_fifth_decimal_is_rounded_down_as_the_challenge_does():
    # 3 / 32 = 0.09375 exactly, which round() would make 0.0938; the challenge's 1e-7 brings it just below.
    assert challenge_scores(np.array([[3, 29, 0], [0, 0, 0]]))["Pre/BC"] == 0.0937


def test_nothing_at_all_scores_zero_and_is_undefined_where_asked():
    nothing = np.zeros((2, 3), int)
    assert set(challenge_scores(nothing).values()) == {0.0}
    assert set(score(nothing).unrounded.values()) == {0.0}
    assert all(np.isnan(values).all() for values in precision_recall_f1(nothing, undefined=np.nan))


@given(st.lists(st.integers(0, 10**6), min_size=3, max_size=3))
def test_f1_is_the_harmonic_mean(counts):
    tp, fp, fn = counts
    precision, recall, f1 = precision_recall_f1(np.array(counts))
    assert 0 <= f1 <= 1
    if tp:
        p, r = Fraction(tp, tp + fp), Fraction(tp, tp + fn)
        assert float(precision) == pytest.approx(float(p))
        assert float(recall) == pytest.approx(float(r))
        assert float(f1) == pytest.approx(float(2 * p * r / (p + r)))


def test_a_pair_without_predictions_costs_its_cells():
    assert count_pairs([cells()], [cells((1, 1, BC), (2, 2, TC), (9, 9, TC))])[0].tolist() == [
        [0, 0, 1],
        [0, 0, 2],
    ]


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="1 predicted pairs"):
        count_pairs([cells()], [cells(), cells()])


def test_labels_are_told_apart():
    assert count_pairs([cells((1, 1, BC), (400, 1, TC))], [cells((1, 1, TC), (400, 1, TC))])[0].tolist() == [
        [0, 1, 0],
        [1, 0, 1],
    ]
