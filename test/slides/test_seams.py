"""Seams: a cell that two fields report stays once, and none is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softctm.jobs.slides.cells.seams import duplicates, near_seam
from softctm.slides.lattice import CORE


def arrays(points):
    x, y, height = (np.array([point[i] for point in points]) for i in range(3))
    return x.astype(np.int32), y.astype(np.int32), height.astype(np.float32)


def resolved_by_hand(x, y, height, distance):
    """Highest first, on equality row-major; one by one."""
    order = sorted(range(len(x)), key=lambda i: (-height[i], y[i], x[i]))
    gone, kept = set(), []
    for i in order:
        for j in kept:
            same = (x[i] // CORE, y[i] // CORE) == (x[j] // CORE, y[j] // CORE)
            if not same and max(abs(int(x[i]) - x[j]), abs(int(y[i]) - y[j])) < distance:
                gone.add(i)
        if i not in gone:
            kept.append(i)
    return [i in gone for i in range(len(x))]


crowd = st.lists(
    st.tuples(*[st.integers(CORE - 8, CORE + 8)] * 2, st.sampled_from([0.5, 0.6, 0.7])),
    max_size=40,
    unique_by=lambda point: point[:2],
)


@settings(deadline=None)
@given(points=crowd, distance=st.integers(1, 6))
def test_the_higher_point_stays_as_by_hand(points, distance):
    x, y, height = arrays(points)
    gone = duplicates(x, y, height, distance)
    assert gone.tolist() == resolved_by_hand(x, y, height, distance)
    near = near_seam(x, y, distance)
    assert not (gone & ~near).any()
    kept = near.copy()
    kept[near] = duplicates(x[near], y[near], height[near], distance)
    np.testing.assert_array_equal(kept, gone)  # the others need not be looked at


@settings(deadline=None)
@given(points=crowd, distance=st.integers(1, 6), seed=st.integers(0, 99))
def test_the_order_of_the_points_does_not_matter(points, distance, seed):
    x, y, height = arrays(points)
    shuffled = np.random.default_rng(seed).permutation(len(x))
    gone = duplicates(x[shuffled], y[shuffled], height[shuffled], distance)
    np.testing.assert_array_equal(gone, duplicates(x, y, height, distance)[shuffled])


@pytest.mark.parametrize(
    ("points", "gone"),
    [
        ([(895, 10, 0.6), (896, 10, 0.7)], [True, False]),  # two fields, one cell
        ([(895, 10, 0.7), (896, 10, 0.7)], [False, True]),  # equal: the first in row-major order
        ([(895, 11, 0.7), (896, 10, 0.7)], [True, False]),
        ([(894, 10, 0.6), (897, 10, 0.7)], [False, False]),  # 3 px apart: two cells
        ([(893, 10, 0.6), (895, 10, 0.7)], [False, False]),  # of one field: its own rule has seen to them
        ([(894, 10, 0.9), (896, 10, 0.8), (895, 12, 0.7)], [False, True, False]),  # what goes removes nothing
    ],
)
def test_cases_by_hand(points, gone):
    assert duplicates(*arrays(points), 3).tolist() == gone


def test_no_points_are_no_duplicates():
    assert duplicates(*arrays([]), 3).shape == (0,)
