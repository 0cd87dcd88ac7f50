"""A second task moves in: a network with two heads, its own decoder and writer, nothing else touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_networks import with_named_outputs

from softctm import load_detector
from softctm.errors import ModelError
from softctm.model.manifest import Manifest
from softctm.model.tasks import TASKS, Task
from softctm.ort.graphs import Graph
from softctm.ort.runtime import Runtime, Value
from softctm.postprocessing.methods import METHODS, Method

SIZE = 64


# ---- the files that a new task brings --------------------------------------------------------------------


def check_spots(manifest: Manifest) -> None:
    (stage,) = manifest.stages.values()
    if [head.name for head in stage.heads] != ["spot", "depth"]:
        raise ValueError("stages: the heads must be spot and depth")


@dataclass(frozen=True)
class Spots:
    """Settings of the decoder."""

    least: float = 0.5


class SpotDecoder:
    """Where the spot's probability exceeds a least one: (x, y, depth)."""

    def __init__(self, settings: Spots, runtime: Runtime) -> None:
        self._settings = settings

    def __call__(self, maps: Mapping[str, Value]) -> list[tuple[int, int, float]]:
        spot, depth = maps["spot"].numpy()[0, 1], maps["depth"].numpy()[0, 0]
        rows, columns = np.nonzero(spot > self._settings.least)
        return [(int(x), int(y), float(depth[y, x])) for y, x in zip(rows, columns, strict=True)]


def write_spots(path: Path, spots: list[tuple[int, int, float]]) -> None:
    path.write_text(json.dumps({"spots": spots}))


# ---- the test --------------------------------------------------------------------------------------------


def two_heads() -> bytes:
    """Red above a half is a spot (logits ± 8); the depth is 10 × green; outputs in an order of their own."""
    graph = Graph()
    image = graph.input("image", np.float32, ("n", 3, SIZE, SIZE))
    pick = np.zeros((3, 3, 1, 1), np.float32)
    pick[0, 1] = 10
    pick[1, 0], pick[2, 0] = -16, 16
    planes = graph.node("Conv", image, graph.constant(pick))
    depth = graph.node("Slice", planes, graph.axes(0), graph.axes(1), graph.axes(1))
    both = graph.node("Slice", planes, graph.axes(1), graph.axes(3), graph.axes(1))
    bias = np.array([8, -8], np.float32).reshape(1, 2, 1, 1)
    spot = graph.node("Add", both, graph.constant(bias))
    # A third output that the manifest does not name is ignored.
    return with_named_outputs(graph, {"depth": depth, "extra": planes, "spot": spot})


def write_model(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    content = two_heads()
    (folder / "net.onnx").write_bytes(content)
    stored = {"path": "net.onnx", "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {
        "schema_version": 2,
        "task": "spots",
        "name": "toy",
        "stages": {
            "all": {
                "input": {"size": SIZE, "mpp": 0.5, "channels": ["red", "green", "blue"]},
                "heads": [
                    {"name": "spot", "classes": ["none", "spot"], "activation": "logits"},
                    {"name": "depth", "classes": ["depth"], "activation": "none"},
                ],
                "networks": [{"files": {"float32": stored}}],
            }
        },
        "postprocessing": {"method": "spots", "least": 0.9},
        **changes,
    }
    (folder / "model.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(check_spots, "softctm.inference.image_detector:ImageDetector")
    monkeypatch.setitem(TASKS, "spots", task)
    monkeypatch.setitem(METHODS, "spots", Method(Spots, SpotDecoder))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("views", [1, 8])
def test_runs_through_manifest_detector_and_writer(tmp_path: Path, views: int) -> None:
    image = np.full((SIZE, SIZE, 3), 20, np.uint8)
    image[5, 40] = (250, 51, 0)
    image[60, 2] = (200, 204, 0)
    detector = load_detector(write_model(tmp_path / "toy"), device="cpu", views=views)
    write_spots(tmp_path / "out.json", detector(image))
    spots = json.loads((tmp_path / "out.json").read_text())["spots"]
    assert [(x, y) for x, y, _ in spots] == [(40, 5), (2, 60)]
    np.testing.assert_allclose([depth for *_, depth in spots], [2.0, 8.0], atol=1e-5)
    maps = detector.maps(image)
    assert {name: values.shape for name, values in maps.items()} == {
        "spot": (2, SIZE, SIZE),
        "depth": (1, SIZE, SIZE),
    }
    np.testing.assert_allclose(maps["spot"].sum(axis=0), 1, atol=1e-6)


@pytest.mark.usefixtures("registered")
def test_its_own_rules_are_asked(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "toy", postprocessing={"method": "spots", "lest": 1})
    with pytest.raises(ModelError, match=r"model\.json: postprocessing.*lest"):
        load_detector(folder)
    folder = write_model(tmp_path / "toy")
    document = json.loads((folder / "model.json").read_text())
    document["stages"]["all"]["heads"][1]["name"] = "height"
    (folder / "model.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="the heads must be spot and depth"):
        load_detector(folder)


def test_without_its_registration_it_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'spots' is not known; there are cell-points"):
        load_detector(write_model(tmp_path / "toy"))
