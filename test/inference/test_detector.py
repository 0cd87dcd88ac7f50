"""The detector as a whole: the authors' result, a plain version of the method, symmetry, bad networks."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from tiny_networks import network, write_folder, write_manifest

from softctm import CellPoints, CellTissuePair, TissueWindow, load_detector
from softctm.errors import DeviceError, ModelError, PairError
from softctm.inference.detector import Detector
from softctm.inference.parallel import in_order
from softctm.inference.tissue_context import upsampling_matrix
from softctm.inference.tta import VIEWS, View, first_views
from softctm.model import load_model
from softctm.ort.graphs import Graph
from softctm.ort.runtime import OutOfDeviceMemoryError, Session
from softctm.pair import PATCH_SIZE, WINDOW_SIZE
from softctm.readers.geometry import tissue_window

Array = NDArray[Any]


def reference_pairs(folder: Path) -> list[CellTissuePair]:
    """The three pairs of the reference input, each stream a stack of patches."""
    cells, tissues = (
        tifffile.imread(next((folder / f"input/images/{kind}_patches").iterdir())).reshape(
            -1, PATCH_SIZE, PATCH_SIZE, 3
        )
        for kind in ("cell", "tissue")
    )
    metadata = json.loads((folder / "input/metadata.json").read_text())
    return [
        CellTissuePair(cell, tissue, tissue_window(entry, f"{index}"), f"{index}")
        for index, (cell, tissue, entry) in enumerate(zip(cells, tissues, metadata, strict=True))
    ]


def random_pair(seed: int = 0) -> CellTissuePair:
    """Blurred noise: plenty of peaks, no two of them equal."""
    random = np.random.default_rng(seed)
    cell, tissue = (
        np.clip(128 + 900 * ndimage.gaussian_filter(random.normal(0, 1, (1024, 1024, 3)), (4, 4, 0)), 0, 255)
        for _ in range(2)
    )
    return CellTissuePair(cell.astype(np.uint8), tissue.astype(np.uint8), TissueWindow(301, 77), "noise")


def turned(image: Array, view: View) -> Array:
    """Flip left-right first, then turn clockwise; an image's last axis is its colors."""
    return np.ascontiguousarray(np.rot90(image[:, ::-1] if view.flipped else image, -view.quarter_turns))


def as_cells(points: CellPoints) -> dict[tuple[int, int], tuple[int, float]]:
    values = (array.tolist() for array in (points.x, points.y, points.label, points.score))
    return {(x, y): (label, score) for x, y, label, score in zip(*values, strict=True)}


@pytest.fixture(scope="module")
def pair() -> CellTissuePair:
    return random_pair()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tiny"), folds=2)


@pytest.mark.parametrize("weights", ["five_folds", "single_file"])
def test_gives_the_authors_points_classes_and_probabilities(shared: Path, weights: str) -> None:
    folder = shared / "reference/inference"
    document = json.loads((folder / "output/cell_classification.json").read_text())
    expected = {(point["name"], *point["point"]): point["probability"] for point in document["points"]}
    detector = load_detector(folder / weights, device="cpu")
    found = {
        (f"image_{index}", x, y, label): score
        for index, pair in enumerate(reference_pairs(folder))
        for (x, y), (label, score) in as_cells(detector(pair)).items()
    }
    assert found.keys() == expected.keys()
    assert len(document["points"]) == len(expected)
    assert max(abs(found[key] - expected[key]) for key in expected) < 1e-3


def plain_mean(models: Sequence[bytes], image: Array, views: int, from_logits: bool) -> Array:
    """Views and folds one after the other in NumPy, double precision between the networks."""
    total: Array = np.zeros(1)
    for model in models:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        for view in first_views(views):
            output = session.run(None, {"input": turned(image, view).transpose(2, 0, 1)[None]})[0][0]
            output = output.astype(np.float64).transpose(1, 2, 0)
            if from_logits:
                output = np.exp(output) / np.exp(output).sum(axis=2, keepdims=True)
            back = np.rot90(output, view.quarter_turns)
            total = total + (back[:, ::-1] if view.flipped else back)
    return total / (len(models) * views)


@pytest.mark.parametrize("views", [1, 4])
def test_follows_the_method_step_by_step(tiny: Path, pair: CellTissuePair, views: int) -> None:
    tissue = plain_mean(
        [(tiny / "tissue.onnx").read_bytes()], pair.tissue.astype(np.float32) / 255, views, from_logits=True
    )
    x, y = pair.window.x, pair.window.y
    enlarge = upsampling_matrix(WINDOW_SIZE, 4)
    context = np.einsum("ij,jkc,lk->ilc", enlarge, tissue[y : y + 256, x : x + 256], enlarge, optimize=True)
    image = np.concatenate([pair.cell / 255, context], axis=2).astype(np.float32)
    folds = [path.read_bytes() for path in sorted(tiny.glob("cell*"))]
    cells = plain_mean(folds, image, views, from_logits=False)

    prediction = load_detector(tiny, device="cpu", views=views).predict(pair, maps=True)
    assert prediction.tissue_probability is not None
    assert prediction.cell_probability is not None
    np.testing.assert_allclose(prediction.tissue_probability.transpose(1, 2, 0), tissue, atol=2e-6)
    np.testing.assert_allclose(prediction.cell_probability.transpose(1, 2, 0), cells, atol=2e-5)

    smooth = ndimage.gaussian_filter(1 - cells[..., 0], 3, mode="mirror", truncate=4)
    peaks = peak_local_max(smooth, min_distance=3, threshold_abs=0, exclude_border=False)
    none, background, tumor = (cells[*peaks.T, channel] for channel in range(3))
    margin = np.maximum(background, tumor) - none
    sure, possible = (
        {(column, row) for (row, column), gap in zip(peaks.tolist(), margin, strict=True) if gap > least}
        for least in (1e-4, -1e-4)
    )
    found = as_cells(prediction.points)
    # Of two neighbors that differ by rounding only, single precision may take the other one.
    moved = (sure - found.keys()) | (found.keys() - possible)
    assert len(sure) > 100
    assert len(moved) <= 0.01 * len(sure)
    assert all(np.ptp(smooth[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]) < 1e-3 for x, y in moved)
    for (x, y), (label, score) in found.items():
        assert score == pytest.approx(cells[y, x, label], abs=2e-5)
        assert cells[y, x, label] > cells[y, x, 3 - label] - 2e-5


@pytest.fixture(scope="module")
def symmetric(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """A detector that takes the mean over the whole group."""
    return load_detector(write_folder(tmp_path_factory.mktemp("one")), device="cpu", views=8)


@pytest.fixture(scope="module")
def unturned(symmetric: Detector, pair: CellTissuePair) -> dict[tuple[int, int], tuple[int, float]]:
    return as_cells(symmetric(pair))


@pytest.mark.parametrize("view", [VIEWS[1], VIEWS[4]])
def test_turning_the_input_turns_the_points(
    symmetric: Detector, pair: CellTissuePair, unturned: dict[tuple[int, int], tuple[int, float]], view: View
) -> None:
    footprint = np.zeros((PATCH_SIZE, PATCH_SIZE), bool)
    footprint[pair.window.y :, pair.window.x :][:WINDOW_SIZE, :WINDOW_SIZE] = True
    rows, columns = np.nonzero(turned(footprint, view))
    window = TissueWindow(int(columns.min()), int(rows.min()))
    other = CellTissuePair(turned(pair.cell, view), turned(pair.tissue, view), window)

    after = as_cells(symmetric(other))
    place = turned(np.arange(PATCH_SIZE**2).reshape(PATCH_SIZE, PATCH_SIZE), view)
    back = {
        (int(place[y, x] % PATCH_SIZE), int(place[y, x] // PATCH_SIZE)): cell
        for (x, y), cell in after.items()
    }
    assert len(unturned) > 100
    assert back.keys() == unturned.keys()
    for position, (label, score) in unturned.items():
        assert back[position] == (label, pytest.approx(score, abs=1e-5))


def test_the_same_input_twice_gives_the_same_bytes(tiny: Path, pair: CellTissuePair) -> None:
    first = load_detector(tiny, device="cpu", views=2)
    second = load_detector(tiny, device="cpu", views=2)
    runs = [first(pair), first(pair), second(pair)]
    for name in ("x", "y", "label", "score"):
        assert len({getattr(points, name).tobytes() for points in runs}) == 1


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_networks_of_a_fixed_batch_give_the_same(
    tiny: Path, tmp_path: Path, pair: CellTissuePair, batch: int
) -> None:
    fixed = load_detector(write_folder(tmp_path, folds=2, batch=batch), device="cpu", views=4)
    expected = load_detector(tiny, device="cpu", views=4).predict(pair, maps=True)
    np.testing.assert_allclose(
        fixed.predict(pair, maps=True).cell_probability, expected.cell_probability, atol=1e-6
    )


def test_several_views_a_pass_give_the_same(
    tiny: Path, pair: CellTissuePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_detector(tiny, device="cpu", views=4).predict(pair, maps=True)
    monkeypatch.setattr("softctm.inference.ensemble._BATCH", {"cpu": 3})
    batched = load_detector(tiny, device="cpu", views=4).predict(pair, maps=True)
    np.testing.assert_allclose(batched.cell_probability, expected.cell_probability, atol=1e-6)


@pytest.mark.parametrize("batch", ["n", 3])
def test_several_threads_give_the_same(
    tiny: Path, tmp_path: Path, pair: CellTissuePair, monkeypatch: pytest.MonkeyPatch, batch: int | str
) -> None:
    monkeypatch.setattr("softctm.inference.detector.SHARES", 1)
    expected = load_detector(tiny, device="cpu", views=4).predict(pair, maps=True)
    monkeypatch.setattr("softctm.inference.detector.SHARES", 2)
    monkeypatch.setattr("softctm.ort.runtime.available_processors", lambda: 3)
    folder = write_folder(tmp_path, folds=2, batch=batch)
    shared = load_detector(folder, device="cpu", views=4).predict(pair, maps=True)
    np.testing.assert_allclose(shared.cell_probability, expected.cell_probability, atol=1e-6)


def test_callers_side_by_side_get_what_one_alone_gets(
    tiny: Path, pair: CellTissuePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softctm.ort.runtime.available_processors", lambda: 2)
    model = load_detector(tiny, device="cpu", views=1).model
    fields = [np.roll(pair.cell, 100 * number, axis=1) for number in range(6)]
    context = np.linspace(0, 1, 2 * 256 * 256, dtype=np.float32).reshape(2, 256, 256)
    alone, shared = (Detector(model, device="cpu", views=1, callers=number) for number in (1, 2))
    assert (alone.callers, shared.callers) == (1, 2)
    expected = [alone.find_cells(field, context) for field in fields]
    found = list(in_order(fields, lambda field: shared.find_cells(field, context), 2, "find"))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(other.probability, one.probability)
        np.testing.assert_array_equal(other.points.x, one.points.x)
    assert len(expected[0].points) > 0
    assert Detector(model, device="cpu", views=8, callers=2).callers == 1


def test_an_interrupt_ends_what_the_threads_do(
    tiny: Path, pair: CellTissuePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softctm.ort.runtime.available_processors", lambda: 2)
    detector = load_detector(tiny, device="cpu", views=8)
    run, passes = Session.__call__, itertools.count()

    def interrupted(self: Session, *values: Any, **options: Any) -> Any:
        if self.name.endswith(".onnx") and next(passes) == 0:
            raise KeyboardInterrupt
        time.sleep(0.05)
        return run(self, *values, **options)

    monkeypatch.setattr(Session, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        detector(pair)
    assert next(passes) <= 3  # of eight: those that were running


def test_out_of_memory_halves_the_batch_and_goes_on(
    tiny: Path, pair: CellTissuePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_detector(tiny, device="cpu", views=4).predict(pair, maps=True)
    monkeypatch.setattr("softctm.inference.ensemble._BATCH", {"cpu": 8})
    detector = load_detector(tiny, device="cpu", views=4)
    run, most = Session.__call__, 2

    def short_of_memory(self: Session, *values: Any, **options: Any) -> Any:
        if self.name.endswith(".onnx") and values[0].shape()[0] > most:
            raise OutOfDeviceMemoryError("out of memory")
        return run(self, *values, **options)

    monkeypatch.setattr(Session, "__call__", short_of_memory)
    found = detector.predict(pair, maps=True)
    np.testing.assert_allclose(found.cell_probability, expected.cell_probability, atol=1e-6)
    most = 0
    with pytest.raises(DeviceError, match="out of memory"):
        detector(pair)


def test_one_out_of_three_tissue_classes_and_many_tissue_networks(
    tmp_path: Path, pair: CellTissuePair
) -> None:
    folder = write_folder(tmp_path, tissue_classes=3)
    (folder / "tissue_second.onnx").write_bytes(network(5, 3, 3))
    prediction = load_detector(folder, device="cpu", views=1).predict(pair, maps=True)
    assert prediction.tissue_probability is not None
    assert prediction.tissue_probability.shape == (3, PATCH_SIZE, PATCH_SIZE)
    networks = [(folder / name).read_bytes() for name in ("tissue.onnx", "tissue_second.onnx")]
    expected = plain_mean(networks, pair.tissue.astype(np.float32) / 255, 1, from_logits=True)
    np.testing.assert_allclose(prediction.tissue_probability.transpose(1, 2, 0), expected, atol=2e-6)


def test_manifest_says_whether_cells_are_logits_and_how_points_are_found(
    tmp_path: Path, pair: CellTissuePair
) -> None:
    probabilities = load_detector(write_folder(tmp_path / "a"), device="cpu", views=1).predict(
        pair, maps=True
    )
    folder = write_folder(tmp_path / "b")
    (folder / "cell_fold0.onnx").write_bytes(network(1, 5, 3))
    manifest = write_manifest(folder, postprocessing={"method": "watershed", "min_area_px": 20})
    manifest["stages"]["cells"]["heads"][0]["activation"] = "logits"
    (folder / "model.json").write_text(json.dumps(manifest))
    logits = load_detector(folder, device="cpu", views=1).predict(pair, maps=True)
    np.testing.assert_allclose(logits.cell_probability, probabilities.cell_probability, atol=1e-6)
    assert len(logits.points) > 10
    assert as_cells(logits.points).keys() != as_cells(probabilities.points).keys()


def test_one_folds_networks_alone(tiny: Path, tmp_path: Path, pair: CellTissuePair) -> None:
    folder = write_folder(tmp_path / "all", folds=2)
    write_manifest(folder)
    alone = write_folder(tmp_path / "alone", folds=1)
    found = Detector(load_model(folder).held_out(0), device="cpu", views=1)(pair)
    assert as_cells(found) == as_cells(load_detector(alone, device="cpu", views=1)(pair))


def test_the_first_cell_networks_alone(tmp_path: Path, pair: CellTissuePair) -> None:
    all_five, first_two = (write_folder(tmp_path / str(folds), folds=folds) for folds in (5, 2))
    found = Detector(load_model(all_five).with_networks("cells", 2), device="cpu", views=1)(pair)
    assert as_cells(found) == as_cells(load_detector(first_two, device="cpu", views=1)(pair))
    assert as_cells(found) != as_cells(load_detector(all_five, device="cpu", views=1)(pair))


def test_maps_are_given_only_when_asked_for(tiny: Path, pair: CellTissuePair) -> None:
    prediction = load_detector(tiny, device="cpu", views=1).predict(pair)
    assert prediction.tissue_probability is None
    assert prediction.cell_probability is None


def test_seconds_are_told_by_stage(tiny: Path, pair: CellTissuePair) -> None:
    shares = []
    for _ in range(5):
        detector = load_detector(tiny, device="cpu", views=1)
        start = time.perf_counter()
        detector(pair)
        wall = time.perf_counter() - start
        assert set(detector.seconds) == {"tissue", "context", "cells", "peaks"}
        assert all(seconds > 0 for seconds in detector.seconds.values())
        assert 0 < detector.seconds_in_networks < sum(detector.seconds.values()) <= wall
        shares.append(sum(detector.seconds.values()) / wall)
    # The best: where the machine does something else between two stages, the share is less.
    assert max(shares) > 0.5


def test_a_flat_image_full_of_candidates_takes_no_time(tiny: Path) -> None:
    # These networks see cells in glass: all of its inside is one plateau, every pixel of it a candidate.
    white = np.full((PATCH_SIZE, PATCH_SIZE, 3), 243, np.uint8)
    detector = load_detector(tiny, device="cpu", views=1)
    start = time.process_time()
    assert len(detector(CellTissuePair(white, white, TissueWindow(384, 384)))) > 50_000
    assert time.process_time() - start < 3


@pytest.mark.parametrize("reductions", [(4, 4), (2, 4), (2, 1)])
def test_networks_that_begin_by_reducing_the_image_give_the_same(
    tmp_path: Path, pair: CellTissuePair, reductions: tuple[int, int]
) -> None:
    folder = write_folder(tmp_path)
    (folder / "cell_fold0.onnx").unlink()
    networks = [
        network(seed, 3, 3, activation="Softmax", reduction=reduction)
        for seed, reduction in enumerate(reductions)
    ]
    for fold, content in enumerate(networks):
        (folder / f"cell_fold{fold}.onnx").write_bytes(content)
    cells = plain_mean(networks, pair.cell.astype(np.float32) / 255, 4, from_logits=False)
    found = load_detector(folder, device="cpu", views=4).predict(pair, maps=True).cell_probability
    assert found is not None
    assert cells.std() > 0.01
    np.testing.assert_allclose(found.transpose(1, 2, 0), cells, atol=2e-6)


def nan_for_bright(channels: int, classes: int) -> bytes:
    """A network that takes the root of 0.9 − R: NaN where an image is bright."""
    graph = Graph()
    image = graph.input("input", np.float32, ("n", channels, PATCH_SIZE, PATCH_SIZE))
    red = graph.node("Slice", image, graph.axes(0), graph.axes(1), graph.axes(1))
    root = graph.node("Sqrt", graph.node("Sub", graph.constant(np.float32(0.9)), red))
    planes = graph.node("Concat", root, *[red] * (classes - 1), axis=1)
    return graph.model(graph.node("Softmax", planes, axis=1) if classes == 3 else planes)


@pytest.mark.parametrize(("name", "channels", "classes"), [("tissue.onnx", 3, 2), ("cell_fold1.onnx", 5, 3)])
def test_nan_names_the_network_and_the_pair_and_spares_other_pairs(
    tmp_path: Path, name: str, channels: int, classes: int
) -> None:
    folder = write_folder(tmp_path, folds=2)
    (folder / name).write_bytes(nan_for_bright(channels, classes))
    detector = load_detector(folder, device="cpu", views=1)
    dark = np.full((PATCH_SIZE, PATCH_SIZE, 3), 90, np.uint8)
    bright = dark.copy()
    bright[700, 300] = 255
    with pytest.raises(PairError, match=rf"pair slide_7: the network {name}"):
        detector(CellTissuePair(bright, bright, TissueWindow(0, 0), "slide_7"))
    detector(CellTissuePair(dark, dark, TissueWindow(0, 0), "slide_8"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tissue.onnx", network(0, 4, 2), r"tissue\.onnx: wants 4 channels where 3"),
        ("cell_fold0.onnx", network(0, 6, 3), r"cell_fold0\.onnx: wants 6 channels where 5"),
        ("cell_fold1.onnx", network(0, 5, 4), r"cell_fold1\.onnx: gives 4 classes where 3"),
        ("tissue.onnx", network(0, 3, 3), r"cell_fold0\.onnx: wants 5 channels where 6"),
        ("tissue.onnx", network(0, 3, 4), r"gives 4 classes where background, cancer and"),
        ("cell_fold0.onnx", network(0, 5, 3, size=512), r"cell_fold0\.onnx: input has 512 × 512"),
        ("cell_fold0.onnx", network(0, 5, 3, batch=2), None),
    ],
)
def test_networks_that_do_not_fit_are_named(
    tmp_path: Path, name: str, content: bytes, message: str | None
) -> None:
    folder = write_folder(tmp_path, folds=2)
    (folder / name).write_bytes(content)
    if message is None:
        load_detector(folder, device="cpu")
        return
    with pytest.raises(ModelError, match=message):
        load_detector(folder, device="cpu")


def test_networks_trained_without_tissue_see_the_cell_patch_alone(
    tmp_path: Path, pair: CellTissuePair
) -> None:
    folder = write_folder(tmp_path)
    (folder / "cell_fold0.onnx").write_bytes(network(1, 3, 3, activation="Softmax"))
    detector = load_detector(folder, device="cpu", views=1)
    points = detector(pair)
    assert detector.seconds["tissue"] == 0  # nobody asked for it
    prediction = detector.predict(pair, maps=True)
    assert prediction.points.x.tolist() == points.x.tolist()
    session = onnxruntime.InferenceSession(network(1, 3, 3, activation="Softmax"))
    image = np.float32(pair.cell.transpose(2, 0, 1)[None]) / 255
    np.testing.assert_allclose(
        prediction.cell_probability, session.run(None, {"input": image})[0][0], atol=1e-5
    )


def test_as_many_tissue_classes_as_the_manifest_names(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, tissue_classes=3)
    write_manifest(folder)
    with pytest.raises(ModelError, match=r"tissue\.onnx: gives 3 classes where 2 are wanted"):
        load_detector(folder, device="cpu")


@pytest.mark.gpu
def test_cuda_gives_the_same_points(tiny: Path, pair: CellTissuePair) -> None:
    expected, found = (as_cells(load_detector(tiny, device=device)(pair)) for device in ("cpu", "cuda"))
    assert len(expected.keys() ^ found.keys()) <= 0.005 * len(expected)
