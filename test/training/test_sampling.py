"""Which patches are drawn, and how often."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from softctm.training.sampling import balanced_weights, draw

tables = arrays(
    np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(0, 500).map(float)
)


def test_weights_by_hand() -> None:
    # Half evenly: 1/6 each. Half by class: BC 1/8 to each of the first two, TC 1/4 to the third.
    weights = balanced_weights(np.array([[10.0, 0.0], [10.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(weights, [1 / 6 + 1 / 8, 1 / 6 + 1 / 8, 1 / 6 + 1 / 4])


@given(counts=tables)
def test_weights_are_probabilities_and_leave_no_patch_out(counts: np.ndarray) -> None:
    weights = balanced_weights(counts)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0.5 / len(counts) - 1e-12).all()


@given(counts=tables, factor=st.integers(2, 50))
def test_rarity_of_a_class_does_not_matter(counts: np.ndarray, factor: int) -> None:
    more = counts * [1.0, float(factor)]
    np.testing.assert_allclose(balanced_weights(more), balanced_weights(counts))


def test_a_rare_class_is_seen_more_often_than_by_even_drawing() -> None:
    counts = np.array([[100.0, 0.0]] * 9 + [[0.0, 10.0]])
    weights = balanced_weights(counts)
    seen = weights @ counts
    evenly = counts.mean(0)
    assert seen[1] / seen[0] > 3 * evenly[1] / evenly[0]


def test_patches_are_drawn_as_often_as_their_weights_say() -> None:
    weights = np.array([0.4, 0.05, 0.0, 0.25, 0.3])
    drawn = np.concatenate([draw(weights, 4, 0, step) for step in range(3000)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=5) / len(drawn), weights, atol=0.015)
    assert (drawn != 2).all()


def test_a_patch_below_its_share_is_not_drawn_twice_in_a_batch() -> None:
    weights = np.full(20, 1 / 20)
    for step in range(100):
        assert len(set(draw(weights, 16, 3, step))) == 16


def test_drawing_depends_on_seed_and_step_alone() -> None:
    weights = balanced_weights(np.random.default_rng(0).random((50, 2)))
    forwards = [draw(weights, 8, 7, step) for step in range(6)]
    np.random.seed(1)
    backwards = [draw(weights, 8, 7, step) for step in reversed(range(6))]
    for first, second in zip(forwards, reversed(backwards), strict=True):
        np.testing.assert_array_equal(first, second)
    assert len({tuple(chosen) for chosen in forwards}) == 6
    assert not np.array_equal(draw(weights, 8, 8, 0), forwards[0])
