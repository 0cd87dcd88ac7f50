"""The dihedral group against NumPy's own turns."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from softctm.errors import UsageError
from softctm.inference.tta import VIEWS, View, first_views, views_graph

images = st.tuples(st.just(1), st.integers(1, 4), st.integers(1, 9)).flatmap(
    lambda shape: hnp.arrays(np.float32, (*shape, shape[2]), elements=st.floats(-8, 8, width=32))
)


def run(model: bytes, **inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def turned(image: NDArray[np.float32], view: View) -> NDArray[np.float32]:
    """Flip left-right first, then turn clockwise."""
    flipped = image[..., ::-1] if view.flipped else image
    return np.rot90(flipped, -view.quarter_turns, axes=(-2, -1))


@given(images)
def test_turns_like_numpy(image: NDArray[np.float32]) -> None:
    batch = run(views_graph(VIEWS), image=image)
    np.testing.assert_array_equal(batch, np.concatenate([turned(image, view) for view in VIEWS]))


@given(images, st.sampled_from(VIEWS), st.sampled_from(VIEWS))
def test_turns_from_any_view_to_any_other(image: NDArray[np.float32], start: View, end: View) -> None:
    batch = run(views_graph([end], start), image=turned(image, start))
    np.testing.assert_array_equal(batch, turned(image, end))


def test_each_view_is_one_reversal_or_transposition_of_the_one_before() -> None:
    for before, view in pairwise(VIEWS):
        nodes = onnx.load_model_from_string(views_graph([view], before)).graph.node
        assert [node.op_type for node in nodes] in (["Slice"], ["Transpose"])
    square = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    for before, view in pairwise(VIEWS):
        was, becomes = turned(square, before), turned(square, view)
        changes = (was[..., ::-1], was[..., ::-1, :], np.swapaxes(was, 2, 3))
        assert sum(np.array_equal(becomes, change) for change in changes) == 1


def test_the_eight_views_are_all_different() -> None:
    corner = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    assert len({turned(corner, view).tobytes() for view in VIEWS}) == 8


def test_fewer_views_keep_the_half_turns_first() -> None:
    assert [(view.flipped, view.quarter_turns) for view in first_views(4)] == [
        (False, 0),
        (True, 0),
        (False, 2),
        (True, 2),
    ]
    assert first_views(8)[:4] == first_views(4)
    assert {view.quarter_turns for view in first_views(8)[4:]} == {1, 3}


@pytest.mark.parametrize("count", [0, 3, 5, 16, -1])
def test_other_numbers_of_views_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match="1, 2, 4, 8"):
        first_views(count)
