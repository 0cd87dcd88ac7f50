"""Outlines: against scikit-image's contours, one nucleus at a time, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.measure import find_contours

from softctm.postprocessing.outlines import outlines


def signed_area(polygon):
    x, y = polygon.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def expected_contour(instances, number):
    """The outer contour of the piece that has the largest one, without its last, repeated corner."""
    pieces, count = ndimage.label(instances == number)
    contours = []
    for piece in range(1, count + 1):
        # Pixels of the background hang together at corners where those of a nucleus do not.
        filled = ndimage.binary_fill_holes(np.pad(pieces == piece, 1), np.ones((3, 3))).astype(float)
        contours += [c[:-1, ::-1] - 0.5 for c in find_contours(filled, 0.5, fully_connected="low")]
    return max(contours, key=lambda contour: abs(signed_area(contour)))


def assert_like_scikit_image(instances):
    found = outlines(instances)
    assert found.id.tolist() == sorted(set(instances.ravel().tolist()) - {0})
    for i, number in enumerate(found.id.tolist()):
        polygon, expected = found[i], expected_contour(instances, number)
        assert signed_area(polygon) == pytest.approx(abs(signed_area(expected)))
        assert signed_area(polygon) > 0
        assert len(set(map(tuple, polygon))) == len(polygon) >= 4
        if ndimage.label(instances == number)[1] == 1:  # of equal pieces any may be the one
            assert set(map(tuple, polygon)) <= set(map(tuple, expected))


def test_reference_instances(shared):
    for number in range(3):
        assert_like_scikit_image(np.load(shared / f"reference/cellvit/post_{number}.npz")["instances"])


@settings(max_examples=150, deadline=None)
@given(arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_any_map(instances):
    assert_like_scikit_image(instances)


def test_square_by_hand():
    instances = np.zeros((5, 6), np.int32)
    instances[1:4, 2:5] = 8
    found = outlines(instances)
    # The corner pixels lose an eighth each; straight sides have no corners within.
    assert signed_area(found[0]) == 9 - 4 / 8
    assert sorted(map(tuple, found[0])) == sorted(
        [(2.5, 1), (4.5, 1), (5, 1.5), (5, 3.5), (4.5, 4), (2.5, 4), (2, 3.5), (2, 1.5)]
    )


def test_ring_is_closed():
    instances = np.ones((5, 5), np.int32)
    instances[2, 2] = 0
    assert signed_area(outlines(instances)[0]) == 25 - 4 / 8


def test_nothing():
    found = outlines(np.zeros((4, 4), np.int32))
    assert len(found) == 0
    assert found.corners.shape == (0, 2)


def test_choice():
    instances = np.diag([1, 2, 3]).astype(np.int32)
    found = outlines(instances)
    chosen = found.where(np.array([True, False, True]))
    assert chosen.id.tolist() == [1, 3]
    assert np.array_equal(chosen[1], found[2])


def test_polygons_are_simple():
    """No two sides of a polygon cross or touch, at pinches and diagonals too."""
    instances = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]], np.int32)
    polygon = outlines(instances)[0]
    sides = list(zip(polygon, np.roll(polygon, -1, 0), strict=True))
    for i, (a, b) in enumerate(sides):
        for c, d in sides[i + 1 :]:
            shared_end = (b == c).all() or (a == d).all()
            assert shared_end or not _meet(a, b, c, d)


def _meet(a, b, c, d):
    def turn(p, q, r):
        return np.sign((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    return turn(a, b, c) != turn(a, b, d) and turn(c, d, a) != turn(c, d, b)
