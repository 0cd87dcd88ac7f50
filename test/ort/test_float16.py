"""16-bit networks: close to 32 bits with every stored value rounded, and 32-bit where it matters."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, shape_inference
from tiny_networks import write_folder

from benchmarks.agreement import Agreement
from softctm import CellTissuePair, TissueWindow
from softctm.errors import PairError
from softctm.inference.detector import Detector
from softctm.inference.load import load_detector
from softctm.model import find_weights, load_model
from softctm.ort.graphs import Graph
from softctm.ort.passes.float16 import to_float16 as to_float16_in_place
from softctm.readers import open_pairs

ROOT = Path(__file__).parents[2]
SIZE = 32
LIMITS = {"model_weights/tissue_fold0.onnx": 2e-3, "model_weights/cell_fold3.onnx": 4e-3}
# The hand-set networks end in a steep sigmoid, which enlarges what the last convolution rounds.
LIMITS["test/hand_set/cell_fold0.onnx"] = 3e-2


def to_float16(content: bytes) -> bytes:
    model = onnx.load_model_from_string(content)
    to_float16_in_place(model)
    return bytes(model.SerializeToString())


def weights(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).normal(0, 0.3, shape).astype(np.float32)


def run(content: bytes, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
    """Run as written: without rewriting the graph, so that every cast rounds."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[Any]] = session.run(None, inputs)
    return outputs


def types(model: ModelProto) -> dict[str, int]:
    graph = shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in graph.initializer
    }


def rounding(content: bytes) -> bytes:
    """The same graph with each 16-bit node as a tensor core does it: exact inside, its result rounded.

    ONNX Runtime's CPU provider has no 16-bit kernels and, left alone, keeps 32 bits from node to node.
    """
    model = onnx.load_model_from_string(content)
    kinds = types(model)
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(model.graph.node):
        halves = [name for name in node.output if kinds.get(name) == TensorProto.FLOAT16]
        if node.op_type in ("Cast", "Constant") or not halves:
            nodes.append(node)
            continue
        for position, name in enumerate(node.input):
            if kinds.get(name) == TensorProto.FLOAT16:
                node.input[position] = f"{name}_up_{number}_{position}"
                nodes.append(helper.make_node("Cast", [name], [node.input[position]], to=TensorProto.FLOAT))
        node.output[:] = [f"{name}_exact" if name in halves else name for name in node.output]
        nodes.append(node)
        for name in halves:
            nodes.append(helper.make_node("Cast", [f"{name}_exact"], [name], to=TensorProto.FLOAT16))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def probabilities(output: NDArray[np.float32], logits: bool) -> NDArray[np.float32]:
    powers = np.exp(output - output.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True) if logits else output


@pytest.mark.parametrize("file", LIMITS)
def test_probabilities_stay_close_although_every_stored_value_is_rounded(file: str) -> None:
    if not (ROOT / file).is_file():
        pytest.skip("no default model in this checkout")
    content = (ROOT / file).read_bytes()
    half = to_float16(content)
    model = onnx.load_model_from_string(content)
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    coarse = np.random.default_rng(0).random((1, channels, 64, 64), np.float32)
    image = np.kron(coarse, np.ones((16, 16), np.float32))
    (expected,), (found,) = (
        run(graph, **{model.graph.input[0].name: image}) for graph in (content, rounding(half))
    )
    assert found.dtype == np.float32
    logits = "hand_set" not in file
    difference = np.abs(probabilities(found, logits) - probabilities(expected, logits))
    assert 0 < difference.max() < LIMITS[file]


def segmentation(**changes: Any) -> bytes:
    """Normalize, convolve, pool, enlarge, convolve, enlarge, softmax: a small network of the usual shape."""
    graph = Graph()
    image = graph.input("image", np.float32, ("n", 3, SIZE, SIZE))
    scale = changes.get("scale", 1.0)
    normal = graph.node("Div", image, graph.constant(np.full((1, 3, 1, 1), 0.5, np.float32)))
    first = graph.node("Conv", normal, graph.constant(weights(8, 3, 3, 3) * scale), pads=[1] * 4)
    first = graph.node("Relu", first)
    small = graph.node("MaxPool", first, kernel_shape=[2, 2], strides=[2, 2])
    small = graph.node("Conv", small, graph.constant(weights(8, 8, 1, 1)), graph.constant(weights(8)))
    doubled = graph.constant(np.array([1, 1, 2, 2], np.float32))
    large = graph.node("Resize", small, "", doubled, mode="linear")
    both = graph.node("Concat", large, first, axis=1)
    logits = graph.node("Conv", both, graph.constant(weights(3, 16, 1, 1)))
    larger = graph.node("Resize", logits, "", doubled, mode="linear")
    return graph.model(graph.node("Softmax", larger, axis=1), first)


def test_only_what_lies_between_products_is_16_bit() -> None:
    content = segmentation()
    model = onnx.load_model_from_string(to_float16(content))
    kinds = types(model)
    by_kind = {}
    for node in model.graph.node:
        if node.op_type != "Cast":
            by_kind.setdefault(node.op_type, []).append(kinds[node.output[0]] == TensorProto.FLOAT16)
    assert by_kind == {
        "Div": [False],
        "Conv": [True, True, True],
        "Relu": [True],
        "MaxPool": [True],
        "Resize": [True, False],
        "Concat": [True],
        "Softmax": [False],
    }
    image = np.random.default_rng(1).random((2, 3, SIZE, SIZE), np.float32)
    for found, expected in zip(
        run(rounding(to_float16(content)), image=image), run(content, image=image), strict=True
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=5e-3)


def test_weights_stored_in_16_bits_are_taken_as_they_are() -> None:
    graph = Graph()
    image = graph.input("image", np.float32, (1, 3, SIZE, SIZE))
    stored = weights(4, 3, 3, 3).astype(np.float16)
    kernel = graph.node("Cast", graph.constant(stored), to=TensorProto.FLOAT)
    content = graph.model(graph.node("Conv", image, kernel))
    model = onnx.load_model_from_string(to_float16(content))
    assert [node.op_type for node in model.graph.node] == ["Cast", "Conv", "Cast"]
    (tensor,) = model.graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), stored)


def test_constant_nodes_shapes_and_several_readers() -> None:
    """A value that a shape, a 32-bit node, a 16-bit node and the output all read."""
    graph = Graph()
    image = graph.input("image", np.float32, (1, 3, SIZE, SIZE))
    kernel = onnx.numpy_helper.from_array(weights(4, 3, 1, 1))
    first = graph.node("Conv", image, graph.node("Constant", value=kernel))
    shape = graph.node("Shape", first)
    unlike = graph.node("Exp", first)
    second = graph.node("Conv", graph.node("Mul", first, first), graph.constant(weights(4, 4, 1, 1)))
    content = graph.model(first, shape, unlike, graph.node("Add", second, unlike))
    half = to_float16(content)
    values = np.random.default_rng(2).random((1, 3, SIZE, SIZE), np.float32)
    for found, expected in zip(run(rounding(half), image=values), run(content, image=values), strict=True):
        np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("kind", ["QuantizeLinear", "Relu"])
def test_networks_of_8_bits_or_without_products_stay_as_they_are(kind: str) -> None:
    graph = Graph()
    image = graph.input("image", np.float32, (1, 3, 4, 4))
    if kind == "QuantizeLinear":
        step, zero = graph.constant(np.float32(0.1)), graph.constant(np.uint8(0))
        whole = graph.node(kind, image, step, zero)
        image = graph.node("DequantizeLinear", whole, step, zero)
        content = graph.model(graph.node("Conv", image, graph.constant(weights(4, 3, 1, 1))))
    else:
        content = graph.model(graph.node("Relu", image))
    assert onnx.load_model_from_string(to_float16(content)) == onnx.load_model_from_string(content)


def test_subgraphs_see_the_32_bit_value() -> None:
    graph = Graph()
    image = graph.input("image", np.float32, (1, 3, 8, 8))
    first = graph.node("Conv", image, graph.constant(weights(3, 3, 1, 1)))
    branch = helper.make_graph(
        [helper.make_node("Exp", [first], ["grown"])],
        "branch",
        [],
        [helper.make_tensor_value_info("grown", TensorProto.FLOAT, None)],
    )
    chosen = graph.node("If", graph.constant(np.bool_(True)), then_branch=branch, else_branch=branch)
    content = graph.model(graph.node("Conv", chosen, graph.constant(weights(2, 3, 1, 1))))
    values = np.random.default_rng(3).random((1, 3, 8, 8), np.float32)
    (found,), (expected,) = run(to_float16(content), image=values), run(content, image=values)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)


def test_the_default_model_finds_the_same_cells_in_16_bits(tmp_path: Path) -> None:
    model = load_model(find_weights())
    for network in model.networks:
        (tmp_path / network.path.name).write_bytes(rounding(to_float16(network.read())))
    stages = {
        stage: replace(
            given,
            networks=tuple(
                replace(network, path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
                for network in given.networks
                for path in [tmp_path / network.path.name]
            ),
        )
        for stage, given in model.stages.items()
    }
    pair = open_pairs(ROOT / "test/input").read(0)
    full = Detector(model, device="cpu", views=1).predict(pair, maps=True)
    half = Detector(replace(model, stages=stages), device="cpu", views=1).predict(pair, maps=True)
    agreement = Agreement()
    agreement.add(full.points, half.points)
    assert len(full.points) > 100
    assert agreement.share >= 0.995
    assert 0 < np.abs(full.cell_probability - half.cell_probability).max() < 5e-3


def test_numbers_too_large_for_16_bits_are_told_with_the_remedy(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, gain=1e6)
    flat = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    pair = CellTissuePair(flat, flat, TissueWindow(0, 0))
    with pytest.raises(PairError, match=r"tissue\.onnx gave values that are not finite.*--precision float32"):
        load_detector(folder, device="cpu", views=1, precision="float16")(pair)
    load_detector(folder, device="cpu", views=1)(pair)


def test_the_job_takes_the_precision_and_says_that_a_cpu_gains_nothing(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "process.py"), "--input", str(ROOT / "test/input")]
    options = ["--output", str(tmp_path), "--weights", str(write_folder(tmp_path / "weights"))]
    options += ["--views", "1", "--device", "cpu", "--precision", "float16"]
    done = subprocess.run(program + options, capture_output=True, text=True, check=True)
    assert "float16 saves no time there" in done.stdout + done.stderr
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["options"]["precision"] == "float16"
    assert "float16" in record["device"]["notice"]
