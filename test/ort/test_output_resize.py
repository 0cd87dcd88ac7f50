"""Resizing map by map gives the same logits, and leaves every other network as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from softctm.ort.graphs import Graph
from softctm.ort.passes.output_resize import split_output_resize

ROOT = Path(__file__).resolve().parents[2]


def network(
    *scales: tuple[float, ...], maps: int | str = 3, middle: str | None = None, last: str | None = None
) -> bytes:
    """A convolution to three maps of 12 × 10, then enlargements, perhaps other operators around them."""
    graph = Graph()
    weights = np.random.default_rng(0).normal(0, 1, (3, 4, 3, 3)).astype(np.float32)
    image = graph.input("image", np.float32, ("n", 4, 12, 10))
    value = graph.node("Conv", image, graph.constant(weights), pads=[1] * 4)
    if middle:
        value = graph.node(middle, value)
    for index, scale in enumerate(scales):
        mode = "align_corners" if index == 0 else "half_pixel"
        options: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": mode}
        value = graph.node("Resize", value, "", graph.constant(np.array(scale, np.float32)), **options)
    if last:
        value = graph.node(last, value)
    model = onnx.load_model_from_string(graph.model(value))
    output = onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, ["n", maps, "h", "w"])
    model.graph.output[0].CopyFrom(output)
    return model.SerializeToString()


def split(content: bytes) -> bytes:
    model = onnx.load_model_from_string(content)
    split_output_resize(model)
    return model.SerializeToString()


def run(content: bytes, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": images})
    return np.asarray(output)


def kinds(content: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(content).graph.node]


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("scales", [[(1, 1, 2, 2)], [(1, 1, 4, 4), (1, 1, 2, 3)]])
def test_logits_are_the_same(scales: list[tuple[float, ...]], images: int) -> None:
    content = network(*scales)
    changed = split(content)
    assert kinds(changed) == ["Conv", "Reshape", *["Resize"] * len(scales), "Reshape"]
    values = np.random.default_rng(1).random((images, 4, 12, 10), np.float32)
    expected = run(content, values)
    assert expected.std() > 0.1
    np.testing.assert_allclose(run(changed, values), expected, atol=1e-5)


def test_only_what_the_output_alone_needs_is_changed() -> None:
    changed = split(network((2, 1, 2, 2), (1, 1, 2, 2)))
    assert kinds(changed) == ["Conv", "Resize", "Reshape", "Resize", "Reshape"]


@pytest.mark.parametrize(
    "content",
    [
        network(),
        network((1, 1, 2, 2), last="Softmax"),
        network((1, 1, 2, 2), middle="Floor"),
        network((1, 1, 2, 2), maps="k"),
        network((1, 2, 2, 2), maps=6),
    ],
)
def test_other_networks_are_left_as_they_are(content: bytes) -> None:
    assert onnx.load_model_from_string(split(content)) == onnx.load_model_from_string(content)


def test_a_map_that_is_read_elsewhere_keeps_its_shape() -> None:
    model = onnx.load_model_from_string(network((1, 1, 2, 2), (1, 1, 2, 2)))
    first = next(node for node in model.graph.node if node.op_type == "Resize")
    model.graph.node.extend(
        [
            onnx.helper.make_node("ReduceMax", [first.output[0]], ["largest"]),
            onnx.helper.make_node("Mul", [model.graph.output[0].name, "largest"], ["product"]),
        ]
    )
    model.graph.output[0].name = "product"
    content = model.SerializeToString()
    assert onnx.load_model_from_string(split(content)) == onnx.load_model_from_string(content)


@pytest.mark.slow
def test_default_model_gives_the_same_logits() -> None:
    content = (ROOT / "model_weights/cell_fold0.onnx").read_bytes()
    changed = split(content)
    assert changed != content
    image = np.random.default_rng(0).random((1, 5, 1024, 1024), np.float32)
    np.testing.assert_allclose(run(changed, image), run(content, image), atol=1e-4)
