"""Nucleus masks on drawn nuclei whose outlines are known."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy import ndimage
from training_cases import BC, TC, cells, discs, stained, write_release

from softctm.datasets.ocelot import load_release
from softctm.errors import ModelError
from softctm.points import CellPoints
from softctm.training import segmenters
from softctm.training.arrays import TrainingArrays, load_cells
from softctm.training.config import TargetConfig
from softctm.training.segmenters import (
    FALLBACK_RADIUS_UM,
    MAX_RADIUS_UM,
    ClassicalSegmenter,
    PointGuidedSegmenter,
    open_segmenter,
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


def network(path: Path, *outputs: str, mpp: str | None = "0.2", channels: int = 5, side: int = 128) -> Path:
    """A point-guided network whose logit is the smallest of the named maps.

    dark: positive where it is dark; near: positive in a square of 41 pixels around this nucleus's point;
    cone: falls with the distance from that point, to 0 at 25 pixels; red: everywhere how red it is at that
    point; others: positive in squares around the others' points; all: positive everywhere.
    """
    box = {"kernel_shape": [41, 41], "pads": [20] * 4}
    reach = np.hypot(*np.mgrid[-(side // 2) : side // 2, -(side // 2) : side // 2])
    nodes = [
        helper.make_node("Split", ["image", "parts"], ["rgb", "own", "other"], axis=1),
        helper.make_node("ReduceMean", ["rgb", "one"], ["mean"]),
        helper.make_node("Sub", ["threshold", "mean"], ["dark"]),
        helper.make_node("MaxPool", ["own"], ["own_box"], **box),
        helper.make_node("Sub", ["own_box", "threshold"], ["near"]),
        helper.make_node("MaxPool", ["other"], ["other_box"], **box),
        helper.make_node("Sub", ["other_box", "threshold"], ["others"]),
        helper.make_node("Abs", ["mean"], ["all"]),
        helper.make_node("Slice", ["rgb", "zero", "one", "one"], ["red_channel"]),
        helper.make_node("Mul", ["own", "red_channel"], ["red_at_point"]),
        helper.make_node("ReduceMax", ["red_at_point", "plane"], ["red"]),
        helper.make_node("Min", list(outputs), ["mask"]),
    ]
    constants = [
        helper.make_tensor("parts", TensorProto.INT64, [3], [channels - 2, 1, 1]),
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("plane", TensorProto.INT64, [2], [2, 3]),
        helper.make_tensor("threshold", TensorProto.FLOAT, [1], [0.5]),
        numpy_helper.from_array(((25 - reach) / 200).astype(np.float32)[None, None], "cone"),
    ]
    graph = helper.make_graph(
        nodes,
        "point_guided",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, side, side])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, side, side])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"mpp": mpp} if mpp else {})
    path.write_bytes(model.SerializeToString())
    return path


def guided(folder: Path, *outputs: str, mpp: str | None = "0.2") -> PointGuidedSegmenter:
    return PointGuidedSegmenter(network(folder / "network.onnx", *outputs, mpp=mpp))


def test_points_guide_a_network_to_the_dark_nucleus_at_each(tmp_path: Path) -> None:
    corner = cells(
        (2, 3, BC), *zip(SCATTERED.x.tolist(), SCATTERED.y.tolist(), SCATTERED.label.tolist(), strict=True)
    )
    drawn = discs(SHAPE, corner, 11)
    found = guided(tmp_path, "dark", "near")(stained(drawn > 0), corner)
    # The one in the corner is cut to less than the smallest area: a disc takes its place.
    np.testing.assert_array_equal(np.where(found == 1, 0, found), np.where(drawn == 1, 0, drawn))
    np.testing.assert_array_equal(found == 1, discs(SHAPE, corner, FALLBACK_PX) == 1)


def test_a_network_is_told_where_the_other_points_are(tmp_path: Path) -> None:
    points = cells((60, 60, BC), (100, 60, TC))
    found = guided(tmp_path, "others", "all")(stained(np.ones(SHAPE, bool)), points)
    assert found[60, 90] == 1  # the first nucleus's mask lies around the second point
    assert found[60, 70] == 2


def test_each_pixel_of_two_touching_discs_goes_to_its_own_nucleus(tmp_path: Path) -> None:
    points = cells((60, 60, BC), (83, 60, TC))
    drawn = discs(SHAPE, points, 11)
    assert (drawn[60, 71], drawn[60, 72]) == (1, 2)
    found = guided(tmp_path, "dark", "cone")(stained(drawn > 0), points)  # each mask covers both discs
    np.testing.assert_array_equal(found, drawn)


def test_where_masks_overlap_the_most_probable_wins_not_the_nearest(tmp_path: Path) -> None:
    points = cells((80, 80, BC), (100, 80, TC))
    image = stained(np.ones(SHAPE, bool))
    image[80, 80], image[80, 100] = (100, 0, 0), (200, 0, 0)
    found = guided(tmp_path, "red", "near")(image, points)
    assert (found[80, 80:121] == 2).all()
    assert (found[80, 60:80] == 1).all()


def test_of_a_nucleus_in_parts_the_largest_stays_without_holes(tmp_path: Path) -> None:
    points = cells((80, 80, BC))
    whole = discs(SHAPE, points, 12)
    drawn = (whole > 0) & ~(discs(SHAPE, points, 3) > 0) | (discs(SHAPE, cells((97, 80, BC)), 3) > 0)
    np.testing.assert_array_equal(guided(tmp_path, "dark", "near")(stained(drawn), points), whole)


@pytest.mark.parametrize(("mpp", "reach"), [("0.2", 20), ("0.4", 40), (None, 25)])
def test_a_network_sees_the_pixels_that_it_was_made_for(mpp: str | None, reach: int, tmp_path: Path) -> None:
    """The square around a point has 20 of the network's pixels on either side; NuClick's are of 0.25 µm."""
    points = cells((120, 120, BC))
    found = guided(tmp_path, "near", "all", mpp=mpp)(stained(np.ones((240, 240), bool)), points)
    limit = min(reach, MAX_PX)
    row = np.flatnonzero(found[120])
    assert abs(row.min() - (120 - limit)) <= 2
    assert abs(row.max() - (120 + limit)) <= 2


def test_no_nucleus_of_a_network_reaches_beyond_the_largest_radius(tmp_path: Path) -> None:
    found = guided(tmp_path, "all")(stained(np.ones(SHAPE, bool)), SCATTERED)
    assert farthest(found, SCATTERED) <= MAX_PX + 1e-9
    # All masks are equally probable everywhere: the first has all that it reaches, the last what is left.
    assert found[SCATTERED.y[0], SCATTERED.x[0]] == 1
    assert set(np.unique(found)) == set(range(len(SCATTERED) + 1))


def test_a_network_that_finds_nothing_leaves_discs(tmp_path: Path) -> None:
    segment = guided(tmp_path, "dark")
    pale = stained(np.zeros(SHAPE, bool))
    np.testing.assert_array_equal(segment(pale, SCATTERED), discs(SHAPE, SCATTERED, FALLBACK_PX))
    np.testing.assert_array_equal(segment(pale, CellPoints.empty()), 0)


def test_a_point_guided_segmenter_goes_to_other_processes(tmp_path: Path) -> None:
    image = stained(discs(SHAPE, SCATTERED, 12) > 0)
    segment = guided(tmp_path, "dark", "near")
    copied = pickle.loads(pickle.dumps(segment))
    assert repr(copied) == repr(segment)
    np.testing.assert_array_equal(copied(image, SCATTERED), segment(image, SCATTERED))


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(ModelError, match=r"text\.onnx: cannot be opened as a network that outlines nuclei"):
        PointGuidedSegmenter(tmp_path / "text.onnx")
    with pytest.raises(ModelError, match=r"absent\.onnx: cannot be opened"):
        open_segmenter(str(tmp_path / "absent.onnx"))
    with pytest.raises(ModelError, match=r"six\.onnx: must take 5 channels"):
        PointGuidedSegmenter(network(tmp_path / "six.onnx", "all", channels=6))
    for mpp in ("unknown", "nan", "20"):
        with pytest.raises(ModelError, match=rf"network\.onnx: its mpp is '{mpp}'"):
            guided(tmp_path, "all", mpp=mpp)


def test_segmenters_are_opened_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_segmenter("classical") == ClassicalSegmenter()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(segmenters, "POINTS_FILE", Path("weights/points.onnx"))
    with pytest.raises(ModelError, match=r"points\.onnx: not found; name a network .* by --segmenter FILE"):
        open_segmenter("points")
    (tmp_path / "weights").mkdir()
    file = network(tmp_path / "weights" / "points.onnx", "all")
    assert (
        repr(open_segmenter("points")) == repr(open_segmenter(str(file))) == repr(PointGuidedSegmenter(file))
    )


def test_targets_made_with_another_network_are_not_mistaken(tmp_path: Path) -> None:
    pairs = load_release(write_release(tmp_path / "data", [[(100, 60, BC), (500, 300, TC)]]))
    dark, near = (
        PointGuidedSegmenter(network(tmp_path / f"{name}.onnx", name, "near")) for name in ("dark", "all")
    )
    again = PointGuidedSegmenter(network(tmp_path / "again.onnx", "dark", "near"))

    def targets(segmenter: PointGuidedSegmenter) -> TrainingArrays:
        return load_cells(pairs, 1, TargetConfig("hard"), segmenter, None, tmp_path / "cache", processes=1)

    first, other = targets(dark), targets(near)
    assert other.targets.sum() > first.targets.sum() > 0
    assert first.digest != other.digest
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    np.testing.assert_array_equal(targets(again).targets, first.targets)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == files
