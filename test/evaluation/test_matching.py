from __future__ import annotations

import time

import numpy as np
import pytest
from evaluation_cases import BC, TC, cells, crowded_cells, imperfect, join, literal_match, random_cells, take
from hypothesis import given, settings
from hypothesis import strategies as st

from softctm.evaluation.matching import CellTable, match, match_tables
from softctm.evaluation.scores import count_pairs, pair_counts, score


@settings(max_examples=200, deadline=None)
@given(crowded_cells(), crowded_cells(), st.booleans())
def test_equals_the_rule_spelled_out(predicted, true, same_class):
    found = match(predicted, true, same_class=same_class)
    partner = literal_match(predicted, true, same_class)
    assert found.true_cell.tolist() == partner
    assert found.is_tp.tolist() == [j >= 0 for j in partner]
    assert found.prediction.tolist() == [partner.index(j) if j in partner else -1 for j in range(len(true))]
    for i, j in enumerate(partner):
        expected = np.nan if j < 0 else np.hypot(predicted.x[i] - true.x[j], predicted.y[i] - true.y[j])
        assert found.distance[i] == pytest.approx(expected, nan_ok=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(crowded_cells(), crowded_cells()), max_size=5))
def test_pairs_do_not_reach_each_other(pairs):
    predicted, true = [p for p, _ in pairs], [t for _, t in pairs]
    together = match_tables(CellTable.of(predicted), CellTable.of(true))
    assert together.is_tp.tolist() == [is_tp for p, t in pairs for is_tp in match(p, t).is_tp]
    counts = count_pairs(predicted, true)
    assert counts.shape == (len(pairs), 2, 3)
    for i, (p, t) in enumerate(pairs):
        assert (counts[i] == pair_counts(p, t)).all()


def partner_of(predicted, true, **options):
    return match(cells(*predicted), cells(*true), **options).true_cell.tolist()


def test_fifteen_pixels_are_a_tp_and_the_next_further_distance_is_none():
    assert partner_of([(100, 100, TC)], [(109, 112, TC)]) == [0]  # 9² + 12² = 15²
    assert partner_of([(100, 100, TC)], [(115, 101, TC)]) == [-1]  # 15² + 1


def test_nearest_wins_and_of_equally_near_ones_the_first_listed():
    assert partner_of([(100, 100, BC)], [(105, 100, BC), (96, 100, BC)]) == [1]
    assert partner_of([(100, 100, BC)], [(105, 100, BC), (96, 103, BC), (100, 95, BC)]) == [0]


def test_higher_confidence_chooses_first():
    assert partner_of([(100, 100, BC, 0.4), (108, 100, BC, 0.6)], [(102, 100, BC)]) == [-1, 0]


def test_equal_confidence_keeps_the_order_of_the_file():
    assert partner_of([(100, 100, BC, 0.5), (102, 100, BC, 0.5)], [(102, 100, BC)]) == [0, -1]


def test_confidences_that_differ_only_beyond_float32_are_equal():
    # 0.5 + 1e-9 is larger, but not as float32: the first of the file chooses first.
    assert np.float32(0.5 + 1e-9) == np.float32(0.5)
    assert partner_of([(100, 100, BC, 0.5), (102, 100, BC, 0.5 + 1e-9)], [(102, 100, BC)]) == [0, -1]


def test_greedy_not_optimal():
    # An assignment of least total distance would give both a partner; here the first takes the middle.
    assert partner_of([(110, 100, TC, 0.9), (120, 100, TC, 0.8)], [(100, 100, TC), (114, 100, TC)]) == [1, -1]


def test_another_class_is_no_tp_unless_classes_are_ignored():
    assert partner_of([(100, 100, BC)], [(100, 100, TC)]) == [-1]
    assert partner_of([(100, 100, BC)], [(100, 100, TC)], same_class=False) == [0]


def test_nothing_against_something():
    empty, one = cells(), cells((5, 5, BC))
    assert match(empty, empty).true_cell.tolist() == []
    assert match(empty, one).found.tolist() == [False]
    assert match(one, empty).is_tp.tolist() == [False]


@settings(deadline=None)
@given(crowded_cells(min_size=1), st.integers(0, 2**31))
def test_perfect_predictions_give_one(true, seed):
    random = np.random.default_rng(seed)
    true = join(true, cells((500, 500, BC), (700, 700, TC)))
    shuffled = take(true, random.permutation(len(true)))
    scores = score(pair_counts(shuffled, true))
    assert set(scores.challenge.values()) == {1.0}
    assert set(scores.unrounded.values()) == {1.0}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_order_does_not_matter_where_confidences_differ(seed):
    random = np.random.default_rng(seed)
    true = random_cells(random, 200)
    predicted = imperfect(random, true)
    predicted = take(predicted, np.unique(predicted.score, return_index=True)[1])
    shuffled = take(predicted, random.permutation(len(predicted)))
    assert (pair_counts(predicted, true) == pair_counts(shuffled, true)).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_a_duplicate_costs_a_false_positive(seed):
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(20, 1000, 40), np.arange(20, 1000, 40))  # one true cell in reach at most
    true = cells(*zip(x.ravel(), y.ravel(), random.integers(1, 3, x.size), strict=True))
    predicted = imperfect(random, true)
    before = pair_counts(predicted, true)
    true_positives = match(predicted, true).is_tp.nonzero()[0]
    doubled = random.choice(true_positives)
    after = pair_counts(join(predicted, take(predicted, [doubled])), true)
    change = np.zeros((2, 3), int)
    change[predicted.label[doubled] - 1, 1] = 1
    assert (after - before == change).all()


@settings(deadline=None)
@given(crowded_cells(), crowded_cells(), st.sampled_from([BC, TC]), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_wrong_point_never_helps(predicted, true, label, confidence):
    before = score(pair_counts(predicted, true))
    after = score(pair_counts(join(predicted, cells((800, 800, label, confidence))), true))
    assert after.counts.sum() == before.counts.sum() + 1
    for name, value in after.unrounded.items():
        assert value <= before.unrounded[name]


def test_137_pairs_with_25_000_cells_in_under_two_seconds():
    random = np.random.default_rng(0)
    true = [random_cells(random, 183) for _ in range(137)]
    predicted = [imperfect(random, points) for points in true]
    assert sum(map(len, true)) > 25_000
    start = time.process_time()
    counts = count_pairs(predicted, true)
    assert time.process_time() - start < 2
    assert counts[:, :, [0, 2]].sum() == sum(map(len, true))


def test_many_predictions_at_one_place_do_not_take_forever():
    true = cells(*[(x, 500, TC) for x in range(480, 520)])
    start = time.process_time()
    counts = pair_counts(cells(*[(500, 500, TC, 0.5)] * 20_000), true)
    assert time.process_time() - start < 5
    assert counts[1].tolist() == [31, 20_000 - 31, 9]  # x = 485 … 515 are in reach
