"""What a network begins with is taken out of it where it is a mean over blocks, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from softctm.ort.graphs import Graph
from softctm.ort.passes.input_pooling import input_pooling, pooling_graph, remove_input_pooling
from softctm.pair import PATCH_SIZE

ROOT = Path(__file__).resolve().parents[2]


def network(
    *,
    kind: str = "AveragePool",
    after: bool = True,
    twice: bool = False,
    side: int | str = PATCH_SIZE,
    **pooling: Any,
) -> bytes:
    """Pooling, then a root; perhaps nothing after it, perhaps a second reader of the image."""
    graph = Graph()
    image = graph.input("image", np.float32, (1, "channels", side, side))
    value = graph.node(kind, image, **pooling)
    if after:
        value = graph.node("Sqrt", value)
    if twice:
        value = graph.node("Add", value, graph.node("ReduceMax", image))
    return graph.model(value)


def hoisted(content: bytes) -> tuple[bytes, int]:
    model = onnx.load_model_from_string(content)
    factor = input_pooling(model, PATCH_SIZE)
    remove_input_pooling(model, PATCH_SIZE)
    return model.SerializeToString(), factor


def run(content: bytes, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image})
    return np.asarray(output)


@pytest.mark.parametrize(("factor", "side"), [(2, PATCH_SIZE), (4, "side"), (8, PATCH_SIZE)])
def test_pooling_first_gives_the_same(factor: int, side: int | str) -> None:
    content = network(kernel_shape=[factor] * 2, strides=[factor] * 2, side=side)
    reduced, found = hoisted(content)
    assert found == factor
    assert [node.op_type for node in onnx.load_model_from_string(reduced).graph.node] == ["Sqrt"]
    image = np.random.default_rng(factor).random((1, 3, PATCH_SIZE, PATCH_SIZE), np.float32)
    small = PATCH_SIZE // factor
    means = image.reshape(1, 3, small, factor, small, factor).mean((3, 5))
    np.testing.assert_allclose(run(pooling_graph(factor, PATCH_SIZE), image), means, atol=1e-6)
    np.testing.assert_allclose(run(reduced, means), run(content, image), atol=1e-6)


BLOCKS = {"kernel_shape": [2, 2], "strides": [2, 2]}


@pytest.mark.parametrize(
    "content",
    [
        network(kernel_shape=[2, 2], strides=[1, 1]),
        network(kernel_shape=[2, 2]),
        network(kernel_shape=[2, 4], strides=[2, 4]),
        network(kernel_shape=[3, 3], strides=[3, 3]),
        network(**BLOCKS, pads=[1, 1, 1, 1]),
        network(**BLOCKS, auto_pad="SAME_UPPER"),
        network(kind="MaxPool", **BLOCKS),
        network(kind="Relu"),
        network(**BLOCKS, twice=True),
        network(**BLOCKS, after=False),
        network(**BLOCKS, side=512),
    ],
)
def test_other_networks_are_left_as_they_are(content: bytes) -> None:
    found, factor = hoisted(content)
    assert factor == 1
    assert onnx.load_model_from_string(found) == onnx.load_model_from_string(content)


@pytest.mark.parametrize("folder", ["model_weights", "model_weights/int8"])
def test_the_default_models_cell_networks_begin_so(folder: str) -> None:
    paths = list((ROOT / folder).glob("cell_fold*.onnx"))
    assert len(paths) == 5
    for path in paths:
        assert hoisted(path.read_bytes())[1] == 2
