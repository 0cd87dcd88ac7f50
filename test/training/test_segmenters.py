"""Nucleus masks on drawn nuclei whose outlines are known."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from scipy import ndimage
from training_cases import BC, TC, cells, discs, stained

from softctm.errors import ModelError
from softctm.points import CellPoints
from softctm.training.segmenters import (
    FALLBACK_RADIUS_UM,
    MAX_RADIUS_UM,
    ClassicalSegmenter,
    NuClickSegmenter,
)

FALLBACK_PX, MAX_PX = FALLBACK_RADIUS_UM / 0.2, MAX_RADIUS_UM / 0.2
SCATTERED = cells((30, 30, BC), (80, 34, TC), (140, 90, BC), (40, 120, TC), (100, 110, TC), (150, 150, BC))
SHAPE = (180, 180)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union."""
    return float((first & second).sum() / (first | second).sum())


def farthest(nuclei: np.ndarray, points: CellPoints) -> float:
    """Largest distance, pixels, from a nucleus's point to a pixel of that nucleus."""
    rows, columns = np.nonzero(nuclei)
    owner = nuclei[rows, columns] - 1
    return float(np.hypot(columns - points.x[owner], rows - points.y[owner]).max())


@pytest.mark.parametrize("radius", [10, 14, 20])
def test_finds_drawn_nuclei(radius: int) -> None:
    drawn = discs(SHAPE, SCATTERED, radius)
    image = stained(drawn > 0)
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    found = ClassicalSegmenter()(image, SCATTERED)
    for i in range(len(SCATTERED)):
        assert overlap(found == i + 1, drawn == i + 1) > 0.85


def test_label_is_the_points_number_plus_one_in_any_order() -> None:
    order = np.random.default_rng(3).permutation(len(SCATTERED))
    points = SCATTERED.where(order)
    found = ClassicalSegmenter()(stained(discs(SHAPE, SCATTERED, 12) > 0), points)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found[points.y, points.x], np.arange(1, len(points) + 1))
    assert set(np.unique(found)) == set(range(len(points) + 1))


def test_touching_nuclei_are_split_between_their_points() -> None:
    left, right = cells((40, 50, BC)), cells((62, 50, TC))
    drawn = (discs((100, 100), left, 12) > 0) | (discs((100, 100), right, 12) > 0)
    found = ClassicalSegmenter()(stained(drawn), cells((40, 50, BC), (62, 50, TC)))
    assert (found[:, :48] == 1).sum() > 300
    assert (found[:, :48] == 2).sum() == 0
    assert (found[:, 54:] == 2).sum() > 300
    assert (found[:, 54:] == 1).sum() == 0


def test_pale_inside_of_a_vesicular_nucleus_belongs_to_it() -> None:
    points = cells((50, 50, TC))
    ring = (discs((100, 100), points, 18) > 0) & ~(discs((100, 100), cells((50, 41, TC)), 5) > 0)
    found = ClassicalSegmenter()(stained(ring), points)
    assert overlap(found == 1, discs((100, 100), points, 18) == 1) > 0.85


def test_nuclei_without_a_point_stay_out() -> None:
    found = ClassicalSegmenter()(stained(discs(SHAPE, SCATTERED, 12) > 0), SCATTERED.where(np.arange(3)))
    assert found[SCATTERED.y[3:], SCATTERED.x[3:]].max() == 0


def test_disc_stands_where_nothing_can_be_segmented() -> None:
    blank = np.full((*SHAPE, 3), 240, np.uint8)
    np.testing.assert_array_equal(
        ClassicalSegmenter()(blank, SCATTERED), discs(SHAPE, SCATTERED, FALLBACK_PX)
    )


def test_disc_stands_for_the_one_that_fails_beside_those_that_do_not() -> None:
    blue = SCATTERED.where(np.arange(5))
    found = ClassicalSegmenter()(stained(discs(SHAPE, blue, 16) > 0), SCATTERED)
    np.testing.assert_array_equal(found == 6, discs(SHAPE, SCATTERED, FALLBACK_PX) == 6)
    assert overlap(found == 1, discs(SHAPE, blue, 16) == 1) > 0.85


def test_without_points_there_are_no_nuclei() -> None:
    image = stained(discs(SHAPE, SCATTERED, 12) > 0)
    np.testing.assert_array_equal(ClassicalSegmenter()(image, CellPoints.empty()), 0)


@pytest.mark.parametrize("seed", range(4))
def test_no_nucleus_reaches_beyond_the_largest_radius(seed: int) -> None:
    random = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(random.random(SHAPE), 6) > 0.49
    x, y = random.choice(SHAPE[0], (2, 6), replace=False)
    points = cells(*[(int(a), int(b), TC) for a, b in zip(x, y, strict=True)])
    assert farthest(ClassicalSegmenter()(stained(texture), points), points) <= MAX_PX + 1e-9


def network(path: Path, *outputs: str) -> Path:
    """A network whose logit is the smallest of the named maps.

    dark: positive where it is dark; near: positive in a square of 41 pixels around this nucleus's point;
    others: positive in such squares around the others' points; all: positive everywhere.
    """
    box = {"kernel_shape": [41, 41], "pads": [20] * 4}
    nodes = [
        helper.make_node("Split", ["image", "parts"], ["rgb", "own", "other"], axis=1),
        helper.make_node("ReduceMean", ["rgb", "one"], ["mean"]),
        helper.make_node("Sub", ["threshold", "mean"], ["dark"]),
        helper.make_node("MaxPool", ["own"], ["own_box"], **box),
        helper.make_node("Sub", ["own_box", "threshold"], ["near"]),
        helper.make_node("MaxPool", ["other"], ["other_box"], **box),
        helper.make_node("Sub", ["other_box", "threshold"], ["others"]),
        helper.make_node("Abs", ["mean"], ["all"]),
        helper.make_node("Min", list(outputs), ["mask"]),
    ]
    constants = [
        helper.make_tensor("parts", TensorProto.INT64, [3], [3, 1, 1]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("threshold", TensorProto.FLOAT, [1], [0.5]),
    ]
    graph = helper.make_graph(
        nodes,
        "nuclick",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 5, 128, 128])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, 128, 128])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def test_nuclick_segments_the_dark_nucleus_at_each_click(tmp_path: Path) -> None:
    corner = cells(
        (2, 3, BC), *zip(SCATTERED.x.tolist(), SCATTERED.y.tolist(), SCATTERED.label.tolist(), strict=True)
    )
    drawn = discs(SHAPE, corner, 11)
    found = NuClickSegmenter(network(tmp_path / "nuclick.onnx", "dark", "near"))(stained(drawn > 0), corner)
    # The one in the corner is cut to less than the smallest area: a disc takes its place.
    np.testing.assert_array_equal(np.where(found == 1, 0, found), np.where(drawn == 1, 0, drawn))
    np.testing.assert_array_equal(found == 1, discs(SHAPE, corner, FALLBACK_PX) == 1)


def test_nuclick_is_told_where_the_other_points_are(tmp_path: Path) -> None:
    points = cells((60, 60, BC), (100, 60, TC))
    found = NuClickSegmenter(network(tmp_path / "nuclick.onnx", "others", "all"))(
        stained(np.ones(SHAPE, bool)), points
    )
    assert found[60, 90] == 1  # the first nucleus's mask lies around the second point
    assert found[60, 70] == 2


def test_where_nuclick_masks_overlap_the_nearer_point_wins(tmp_path: Path) -> None:
    points = cells((80, 80, BC), (100, 80, TC))
    found = NuClickSegmenter(network(tmp_path / "nuclick.onnx", "near", "all"))(
        stained(np.ones(SHAPE, bool)), points
    )
    assert (found[80, 60:90] == 1).all()
    assert (found[80, 91:121] == 2).all()


def test_nuclick_no_nucleus_reaches_beyond_the_largest_radius(tmp_path: Path) -> None:
    segment = NuClickSegmenter(network(tmp_path / "nuclick.onnx", "all"))
    found = segment(stained(np.ones(SHAPE, bool)), SCATTERED)
    assert farthest(found, SCATTERED) <= MAX_PX + 1e-9
    np.testing.assert_array_equal(found[SCATTERED.y, SCATTERED.x], np.arange(1, len(SCATTERED) + 1))


def test_nuclick_finding_nothing_leaves_discs(tmp_path: Path) -> None:
    segment = NuClickSegmenter(network(tmp_path / "nuclick.onnx", "dark"))
    pale = stained(np.zeros(SHAPE, bool))
    np.testing.assert_array_equal(segment(pale, SCATTERED), discs(SHAPE, SCATTERED, FALLBACK_PX))
    np.testing.assert_array_equal(segment(pale, CellPoints.empty()), 0)


def test_nuclick_probabilities_have_their_own_threshold(tmp_path: Path) -> None:
    path = network(tmp_path / "nuclick.onnx", "dark", "near")  # at most 0.5 anywhere
    found = NuClickSegmenter(path, logits=False)(stained(np.ones(SHAPE, bool)), SCATTERED)
    np.testing.assert_array_equal(found, discs(SHAPE, SCATTERED, FALLBACK_PX))


def test_nuclick_goes_to_other_processes(tmp_path: Path) -> None:
    image = stained(discs(SHAPE, SCATTERED, 12) > 0)
    for logits in (True, False):
        segment = NuClickSegmenter(network(tmp_path / "nuclick.onnx", "dark", "near"), logits=logits)
        copied = pickle.loads(pickle.dumps(segment))
        assert repr(copied) == repr(segment)
        np.testing.assert_array_equal(copied(image, SCATTERED), segment(image, SCATTERED))


def test_nuclick_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(ModelError, match=r"text\.onnx: cannot be opened as NuClick network"):
        NuClickSegmenter(tmp_path / "text.onnx")
    graph = helper.make_graph(
        [helper.make_node("Abs", ["image"], ["mask"])],
        "rgb",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 128, 128])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 3, 128, 128])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "rgb.onnx")
    with pytest.raises(ModelError, match=r"rgb\.onnx: NuClick takes 5 channels"):
        NuClickSegmenter(tmp_path / "rgb.onnx")


def test_cached_masks_of_another_nuclick_network_are_not_mistaken(tmp_path: Path) -> None:
    one, other = network(tmp_path / "a.onnx", "dark"), network(tmp_path / "b.onnx", "near", "all")
    again = network(tmp_path / "c.onnx", "dark")
    assert repr(NuClickSegmenter(one)) == repr(NuClickSegmenter(again))
    assert repr(NuClickSegmenter(one)) != repr(NuClickSegmenter(other))
