"""Networks that see both patches at once: every view turns the pair and its window; the rest is a mean."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from tiny_networks import network, with_named_outputs

from softctm import CellTissuePair, TissueWindow, load_detector
from softctm.errors import ModelError, PairError
from softctm.inference.joint_detector import JointDetector
from softctm.inference.tissue_context import pair_graph
from softctm.jobs.job_options import JobOptions
from softctm.jobs.pairs import load_detector as open_for_pairs
from softctm.jobs.slides.engine import load_slide_detector
from softctm.model import load_model
from softctm.model.manifest import AROUND, RGB
from softctm.ort.graphs import Graph
from softctm.writers.viewers import write_for_viewers

Array = NDArray[Any]
SIDE, WINDOW = 1024, 256
HEADS = {"cells": ["none", "background_cell", "tumor_cell"], "tissue": ["background", "cancer"]}


def joint_network(seed: int) -> bytes:
    """A 3 × 3 convolution over all seven planes, unsymmetrical; logits of both maps, the tissue's first."""
    weights = np.random.default_rng(seed).normal(0, 1, (5, 7, 3, 3)).astype(np.float32)
    graph = Graph()
    image = graph.input("image", np.float32, ("n", 7, SIDE, SIDE))
    logits = graph.node("Conv", image, graph.constant(weights), pads=[1] * 4)
    cells = graph.node("Slice", logits, graph.axes(0), graph.axes(3), graph.axes(1))
    tissue = graph.node("Slice", logits, graph.axes(3), graph.axes(5), graph.axes(1))
    return with_named_outputs(graph, {"tissue": tissue, "cells": cells})


def write_model(folder: Path, *networks: bytes, heads: tuple[str, ...] = ("cells", "tissue")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for fold, content in enumerate(networks):
        (folder / f"{fold}.onnx").write_bytes(content)
        stored = {"path": f"{fold}.onnx", "sha256": hashlib.sha256(content).hexdigest()}
        entries.append({"fold": fold, "files": {"float32": stored}})
    manifest = {
        "schema_version": 2,
        "task": "joint-cell-points",
        "name": "joint",
        "stages": {
            "cells": {
                "input": {"size": SIDE, "mpp": 0.2, "channels": [*RGB, *AROUND]},
                "heads": [{"name": name, "classes": HEADS[name], "activation": "logits"} for name in heads],
                "networks": entries,
            }
        },
        "postprocessing": {"method": "peaks"},
    }
    (folder / "model.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def pair() -> CellTissuePair:
    random = np.random.default_rng(0)
    cell, tissue = (
        np.clip(128 + 900 * ndimage.gaussian_filter(random.normal(0, 1, (SIDE, SIDE, 3)), (4, 4, 0)), 0, 255)
        for _ in range(2)
    )
    return CellTissuePair(cell.astype(np.uint8), tissue.astype(np.uint8), TissueWindow(301, 77), "noise")


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("joint"), joint_network(1), joint_network(2))


def planes(cell: Array, tissue: Array, x: int, y: int) -> Array:
    """The networks' input, (7, 1024, 1024)."""
    window = np.zeros((SIDE, SIDE, 1))
    window[y : y + WINDOW, x : x + WINDOW] = 1
    whole = np.concatenate([cell / 255, tissue / 255, window], axis=2)
    return np.ascontiguousarray(whole.transpose(2, 0, 1).astype(np.float32))


def test_input_is_both_images_and_the_window(pair: CellTissuePair) -> None:
    session = onnxruntime.InferenceSession(pair_graph(), providers=["CPUExecutionProvider"])
    for x, y in ((0, 768), (301, 77), (768, 0)):
        corner = {"x": np.array([x]), "y": np.array([y])}
        (found,) = session.run(None, {"cell": pair.cell, "tissue": pair.tissue, **corner})
        np.testing.assert_allclose(found[0], planes(pair.cell, pair.tissue, x, y), atol=1e-7)


@pytest.mark.parametrize("pooling", [2, 4])
def test_pooled_input_is_the_average_of_the_whole(pair: CellTissuePair, pooling: int) -> None:
    session = onnxruntime.InferenceSession(pair_graph(pooling), providers=["CPUExecutionProvider"])
    corner = {"x": np.array([301]), "y": np.array([767])}
    (found,) = session.run(None, {"cell": pair.cell, "tissue": pair.tissue, **corner})
    whole = planes(pair.cell, pair.tissue, 301, 767)
    blocks = whole.reshape(7, SIDE // pooling, pooling, SIDE // pooling, pooling)
    np.testing.assert_allclose(found[0], blocks.mean(axis=(2, 4)), atol=1e-6)


def turned_corner(x: int, y: int, flipped: bool, turns: int) -> tuple[int, int]:
    """Where the window's corner comes to lie: flipped left-right first, then turned clockwise."""
    rest = SIDE - WINDOW
    x = rest - x if flipped else x
    for _ in range(turns):
        x, y = rest - y, x
    return x, y


@pytest.mark.parametrize("views", [1, 8])
def test_maps_are_the_mean_over_networks_and_views_of_the_turned_pair(
    joint: Path, pair: CellTissuePair, views: int
) -> None:
    order = [(False, 0), (True, 0), (False, 2), (True, 2), (False, 1), (True, 1), (False, 3), (True, 3)]
    total = {"cells": np.zeros((3, SIDE, SIDE)), "tissue": np.zeros((2, SIDE, SIDE))}
    for path in sorted(joint.glob("*.onnx")):
        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        for flipped, turns in order[:views]:
            images = [
                np.rot90(image[:, ::-1] if flipped else image, -turns) for image in (pair.cell, pair.tissue)
            ]
            corner = turned_corner(pair.window.x, pair.window.y, flipped, turns)
            shown = planes(*images, *corner)[None]
            for name, logits in zip(total, session.run(list(total), {"image": shown}), strict=True):
                powers = np.exp(logits[0].astype(np.float64))
                back = np.rot90(powers / powers.sum(axis=0), turns, axes=(1, 2))
                total[name] += back[..., ::-1] if flipped else back
    detector = load_detector(joint, device="cpu", views=views)
    assert isinstance(detector, JointDetector)
    prediction = detector.predict(pair, maps=True)
    for name, found in (
        ("cells", prediction.cell_probability),
        ("tissue", prediction.tissue_probability),
    ):
        np.testing.assert_allclose(found, total[name] / (2 * views), atol=2e-5)
    assert len(prediction.points) > 100
    none, *classes = total["cells"]
    sure = np.max(classes, axis=0) - none > -1e-3
    assert sure[prediction.points.y, prediction.points.x].all()
    assert detector.seconds["networks"] > 0
    assert detector.predict(pair).tissue_probability is None  # maps were not asked for


def test_a_model_without_tissue_map_says_so_where_one_is_wanted(tmp_path: Path, pair: CellTissuePair) -> None:
    folder = write_model(tmp_path / "model", network(3, 7, 3), heads=("cells",))
    prediction = load_detector(folder, device="cpu", views=1).predict(pair, maps=True)
    assert prediction.tissue_probability is None
    assert prediction.cell_probability is not None
    for name in ("csv", "overview"):
        write_for_viewers(tmp_path, name, pair, prediction)
    with pytest.raises(ModelError, match="the model gives no tissue map; leave tissue out"):
        write_for_viewers(tmp_path, "tissue", pair, prediction)


def test_one_folds_networks_alone(joint: Path, pair: CellTissuePair, tmp_path: Path) -> None:
    held_out = JointDetector(load_model(joint).held_out(1), device="cpu", views=1)
    alone = load_detector(write_model(tmp_path / "alone", joint_network(2)), device="cpu", views=1)
    first, second = (detector.predict(pair, maps=True).cell_probability for detector in (held_out, alone))
    np.testing.assert_array_equal(first, second)


def test_values_that_are_not_finite_name_the_pair(tmp_path: Path, pair: CellTissuePair) -> None:
    folder = write_model(tmp_path / "model", network(3, 7, 3, gain=np.inf), heads=("cells",))
    with pytest.raises(PairError, match=r"pair noise: the network 0\.onnx gave values that are not finite"):
        load_detector(folder, device="cpu", views=1)(pair)


def test_it_is_a_model_of_pairs_and_not_of_slides(joint: Path) -> None:
    options = JobOptions(joint, device="cpu", views=1)
    assert isinstance(open_for_pairs(options), JointDetector)
    with pytest.raises(ModelError, match="of the task joint-cell-points, not of cell-points"):
        load_slide_detector(options)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("heads", [], "heads"),
        ("heads", ["tissue"], r"must be cells \(none, .*\) and perhaps tissue \(background, cancer\)"),
        ("channels", [*RGB], r"cells.input.channels: must be \(red, green, blue, around.red"),
        ("channels", [*RGB, "around.depth"], "'around.depth' is neither a color"),
        ("mpp", 0.8, "cells.input.mpp: must be about 0.2"),
        ("activation", "none", "activations must be logits or probabilities"),
        ("stage", "both", "stages: must be cells alone, not both"),
    ],
)
def test_a_faulty_manifest_is_refused(tmp_path: Path, part: str, value: Any, message: str) -> None:
    folder = write_model(tmp_path, joint_network(1))
    document = json.loads((folder / "model.json").read_text())
    stage = document["stages"]["cells"]
    if part == "heads":
        stage["heads"] = [head for head in stage["heads"] if head["name"] in value]
    elif part == "activation":
        stage["heads"][1]["activation"] = value
    elif part == "stage":
        document["stages"] = {value: stage}
    else:
        stage["input"][part] = value
    (folder / "model.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=message):
        load_model(folder)
