"""A network in 8 bits stays as close as 8 bits can be, and keeps its inputs, outputs and batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import correlate
from tiny_networks import network

from softctm.errors import InputError, ModelError
from softctm.ort.quantization import _rearrange_first_convolution, quantize_network

SIZE = 32


def images(count: int, channels: int = 3, seed: int = 0) -> list[np.ndarray]:
    """Random images whose values reach from 0 to 1."""
    found = np.random.default_rng(seed).random((count, 1, channels, SIZE, SIZE), np.float32)
    found[:, :, :, 0, 0], found[:, :, :, 0, 1] = 0, 1
    return list(found)


def run(content: bytes, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image})
    return np.asarray(output)


def constants(content: bytes) -> dict[str, np.ndarray]:
    graph = onnx.load_model_from_string(content).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def one_convolution(**attributes: Any) -> tuple[onnx.ModelProto, np.ndarray]:
    """A model of a convolution and a rectifier, and the convolution's weights."""
    size, channels, group = (
        attributes.pop("size", 7),
        attributes.pop("channels", 5),
        attributes.get("group", 1),
    )
    weights = np.random.default_rng(3).normal(0, 1, (8, channels // group, size, size)).astype(np.float32)
    bias = np.linspace(-1, 1, 8, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weights", "bias"], ["sums"], name="stem", **attributes),
            helper.make_node("Relu", ["sums"], ["output"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, SIZE, SIZE])],
        [helper.make_empty_tensor_value_info("output")],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), weights


def test_error_is_within_the_bound_of_8_bits() -> None:
    """Each factor of each product is off by half a step at most, and so is the sum: bounded by hand."""
    content = network(5, 3, 2, size=SIZE)
    (weights,) = constants(content).values()
    shown = images(4)
    small = quantize_network(content, iter(shown), "tiny")
    expected = np.stack(
        [sum(correlate(shown[0][0, c], kernel[c], mode="constant") for c in range(3)) for kernel in weights]
    )
    weight_step = np.abs(weights).max(axis=(1, 2, 3)) / 127
    sums = np.concatenate([run(content, image) for image in shown])
    output_step = (max(sums.max(), 0) - min(sums.min(), 0)) / 255
    bound = np.abs(weights).sum(axis=(1, 2, 3)) / 255 / 2 + 75 * weight_step / 2 * (1 + 1 / 255 / 2)
    off = np.abs(run(small, shown[0])[0] - expected)
    assert (off.max(axis=(1, 2)) <= bound + output_step / 2 + 1e-4).all()
    assert off.mean() > 1e-4  # not the 32-bit network itself
    assert off.mean() < 0.01 * np.abs(expected).max()


def test_weights_are_8_bit_with_a_scale_for_each_output_channel() -> None:
    content = network(5, 3, 2, size=SIZE)
    (weights,) = constants(content).values()
    stored = constants(quantize_network(content, iter(images(2)), "tiny"))
    (integers,) = (value for value in stored.values() if value.ndim == 4)
    assert integers.dtype == np.int8
    (scales,) = (value for value in stored.values() if value.dtype == np.float32 and value.shape == (2,))
    np.testing.assert_allclose(scales, np.abs(weights).max(axis=(1, 2, 3)) / 127, rtol=1e-5)
    np.testing.assert_allclose(integers * scales[:, None, None, None], weights, atol=scales.max() * 0.501)


def test_inputs_outputs_and_an_open_batch_stay() -> None:
    content = network(5, 4, 3, size=SIZE)
    small = quantize_network(content, iter(images(2, channels=4)), "tiny")
    before, after = (onnxruntime.InferenceSession(model) for model in (content, small))
    for kind in ("get_inputs", "get_outputs"):
        old, new = (getattr(session, kind)()[0] for session in (before, after))
        assert (old.name, old.type) == (new.name, new.type)
    pair = np.concatenate(images(2, channels=4, seed=9))
    one_by_one = np.concatenate([run(small, pair[:1]), run(small, pair[1:])])
    np.testing.assert_array_equal(run(small, pair), one_by_one)


def test_images_are_cut_to_the_channels_and_repeated_to_the_batch_of_the_network() -> None:
    content = network(5, 3, 2, size=SIZE, batch=2)
    shown = images(2, channels=5)
    small = quantize_network(content, iter(shown), "tiny")
    alone = quantize_network(network(5, 3, 2, size=SIZE), (image[:, :3] for image in shown), "tiny")
    both = np.concatenate(shown)[:, :3]
    np.testing.assert_array_equal(run(small, both), run(alone, both))


def test_same_images_give_the_same_bytes_and_others_do_not() -> None:
    content = network(5, 3, 2, size=SIZE)
    first, again = (quantize_network(content, iter(images(2)), "tiny") for _ in range(2))
    darker = quantize_network(content, (image / 2 for image in images(2)), "tiny")
    assert first == again
    assert first != darker


def test_weights_stored_in_16_bits_are_taken_as_they_are() -> None:
    model, weights = one_convolution(strides=[1, 1], pads=[3] * 4)
    plain = quantize_network(model.SerializeToString(), iter(images(2, channels=5)), "tiny")
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
    half = weights.astype(np.float16)
    stored.CopyFrom(numpy_helper.from_array(half, "weights_float16"))
    model.graph.node.insert(
        0, helper.make_node("Cast", ["weights_float16"], ["weights"], to=TensorProto.FLOAT)
    )
    small = quantize_network(model.SerializeToString(), iter(images(2, channels=5)), "tiny")
    assert all(value.dtype != np.float16 for value in constants(small).values())
    image = images(1, channels=5, seed=4)[0]
    np.testing.assert_allclose(run(small, image), run(plain, image), atol=0.02 * run(plain, image).max())


@pytest.mark.parametrize("size", [3, 7, 11])
def test_first_convolution_over_blocks_computes_the_same(size: int) -> None:
    model, _ = one_convolution(size=size, strides=[2, 2], pads=[size // 2] * 4)
    image = images(1, channels=5)[0]
    expected = run(model.SerializeToString(), image)
    _rearrange_first_convolution(model.graph)
    assert [node.op_type for node in model.graph.node] == ["SpaceToDepth", "Conv", "Relu"]
    np.testing.assert_allclose(run(model.SerializeToString(), image), expected, atol=1e-4)


@pytest.mark.parametrize(
    "attributes",
    [
        {"size": 5, "strides": [2, 2], "pads": [2] * 4},
        {"strides": [1, 1], "pads": [3] * 4},
        {"strides": [2, 2], "pads": [2] * 4},
        {"strides": [2, 2], "pads": [3] * 4, "dilations": [2, 2]},
        {"strides": [2, 2], "pads": [3] * 4, "group": 4, "channels": 8},
        {"strides": [2, 2], "pads": [3] * 4, "channels": 12},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2]},
        {},
    ],
)
def test_other_first_convolutions_are_left_as_they_are(attributes: dict[str, Any]) -> None:
    model, _ = one_convolution(**attributes)
    before = model.SerializeToString()
    _rearrange_first_convolution(model.graph)
    assert model.SerializeToString() == before


def test_what_cannot_be_quantized_is_refused_by_name() -> None:
    content = network(5, 3, 2, size=SIZE)
    small = quantize_network(content, iter(images(1)), "tiny")
    with pytest.raises(ModelError, match="tiny: is in 8 bits already"):
        quantize_network(small, iter(images(1)), "tiny")
    old = onnx.load_model_from_string(content)
    old.opset_import[0].version = 11
    with pytest.raises(ModelError, match="tiny: is written in ONNX opset 11; export it with 13 or later"):
        quantize_network(old.SerializeToString(), iter(images(1)), "tiny")
    model, _ = one_convolution()
    del model.graph.node[0], model.graph.initializer[:]
    model.graph.node[0].input[0] = "image"
    with pytest.raises(ModelError, match="tiny: has no convolution"):
        quantize_network(model.SerializeToString(), iter(images(1)), "tiny")


def test_what_onnx_runtime_cannot_do_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    content = network(5, 3, 2, size=SIZE)
    with pytest.raises(InputError, match="tiny: no pair to calibrate it on"):
        quantize_network(content, iter([]), "tiny")
    with pytest.raises(ModelError, match="tiny: cannot be put into 8 bits") as error:
        quantize_network(content, iter(images(1, channels=2)), "tiny")
    assert "\n" not in str(error.value)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError  # as ONNX Runtime's assertions do, without a word

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fail)
    with pytest.raises(ModelError, match=r"tiny: cannot be put into 8 bits \(AssertionError\)"):
        quantize_network(content, iter(images(1)), "tiny")


@pytest.mark.slow
def test_default_model_keeps_its_probabilities(shared: Path) -> None:
    from softctm.jobs.model_quantization import NetworkInputs, _difference
    from softctm.model import load_model
    from softctm.readers import open_pairs

    model = load_model(Path(__file__).parents[2] / "model_weights")
    content = model.cells.networks[0].read()
    source, inputs = open_pairs(shared / "ocelot", "train"), NetworkInputs(model)
    small = quantize_network(
        content, (inputs.of("cells", source.read(index)) for index in (0, 100, 200)), "cell"
    )
    difference = _difference(content, small, inputs.of("cells", source.read(300)), "logits")
    assert 1e-5 < difference.mean < 0.01
    assert difference.same_class > 0.99
    assert len(small) < 0.6 * len(content)
