"""8-bit networks: a network's convolutions in 8-bit integers, their ranges measured on images.

Processors multiply 8-bit integers several times as fast as 32-bit floats (AVX512-VNNI, AMX). The result is
an ONNX file that plain ONNX Runtime runs.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from softctm.errors import InputError, ModelError, SoftCTMError, one_line

Image = NDArray[np.float32]

_IN_8_BITS = ("Conv", "Add", "Concat", "MaxPool", "Relu")
"""Means over whole maps and interpolation stay in 32 bits: they cost little, and see small differences."""

_FEW_CHANNELS = 8

_OLDEST_OPSET = 13
"""The first with a scale for each output channel."""


def quantize_network(content: bytes, images: Iterable[Image], name: str) -> bytes:
    """Put a network's convolutions, and what lies between them, into 8 bits.

    Weights get a scale for each output channel, activations a scale and a zero for each tensor: the range
    that the images make them take.

    Parameters
    ----------
    content : bytes
        A serialized ONNX model that takes 32-bit floats.
    images : iterable of (1, channels or more, H, W) float32
        What to measure ranges on; the network is given the first channels.
    name : str
        What messages call it.

    Returns
    -------
    bytes
        A model with the same inputs and outputs; the same for the same images.

    Raises
    ------
    ModelError
        If the model is in 8 bits already, has no convolution, or is written in ONNX before opset 13.
    InputError
        If there are no images.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load_model_from_string(content)
    kinds = {node.op_type for node in model.graph.node}
    if "QuantizeLinear" in kinds or "QLinearConv" in kinds:
        raise ModelError(f"{name}: is in 8 bits already; quantize the 32-bit network")
    if "Conv" not in kinds:
        raise ModelError(f"{name}: has no convolution to put into 8 bits")
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < _OLDEST_OPSET:
        raise ModelError(f"{name}: is written in ONNX opset {opset}; export it with {_OLDEST_OPSET} or later")
    with tempfile.TemporaryDirectory() as scratch, _without_advice():
        small = Path(scratch) / "small.onnx"
        model = _with_constants_folded(content, Path(scratch) / "plain.onnx")
        _rearrange_first_convolution(model.graph)
        try:
            quantize_static(
                model,
                small,
                _Reader(model.graph.input[0], images, name),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_IN_8_BITS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except SoftCTMError:
            raise
        except Exception as error:
            raise ModelError(f"{name}: cannot be put into 8 bits ({one_line(error)})") from error
        return small.read_bytes()


def _with_constants_folded(content: bytes, scratch: Path) -> onnx.ModelProto:
    """The model with batch normalization and weights stored in 16 bits folded into 32-bit convolutions."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(scratch)
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return onnx.load(scratch)


class _Reader:
    """Images in the form that ONNX Runtime's calibration asks for."""

    def __init__(self, port: onnx.ValueInfoProto, images: Iterable[Image], name: str) -> None:
        batch, channels = (axis.dim_value for axis in port.type.tensor_type.shape.dim[:2])
        self._port, self._name = port.name, name
        self._images = (np.repeat(image[:, : channels or None], batch or 1, axis=0) for image in images)
        self._given = 0

    def get_next(self) -> dict[str, Image] | None:
        image = next(self._images, None)
        if image is None and not self._given:
            raise InputError(f"{self._name}: no pair to calibrate it on")
        self._given += 1
        return None if image is None else {self._port: image}


def _rearrange_first_convolution(graph: onnx.GraphProto) -> None:
    """Let a first convolution with stride 2 over few channels take blocks of 2 × 2 pixels as one, in place.

    It then has stride 1, half the kernel and four times the channels, and computes the same. 8-bit
    convolutions copy the channels of each pixel as one piece, and three or five make too small a piece.
    """
    node = next(node for node in graph.node if node.op_type == "Conv")
    tensor = next((tensor for tensor in graph.initializer if tensor.name == node.input[1]), None)
    options = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if tensor is None or tensor.dims[1] > _FEW_CHANNELS or not _has_blocks(options, list(tensor.dims[2:])):
        return
    outputs, channels, size, _ = tensor.dims
    half = (size + 1) // 2
    # Sizes 3, 7, 11 … begin one pixel after the corner of a block: a row and a column of zeros go before.
    weights = np.pad(numpy_helper.to_array(tensor), ((0, 0), (0, 0), (1, 0), (1, 0)))
    weights = weights.reshape(outputs, channels, half, 2, half, 2).transpose(0, 3, 5, 1, 2, 4)
    weights = np.ascontiguousarray(weights.reshape(outputs, 4 * channels, half, half))
    graph.initializer.append(numpy_helper.from_array(weights, f"{tensor.name}_blocks"))
    blocks = f"{node.output[0]}_blocks"
    graph.node.insert(
        list(graph.node).index(node), helper.make_node("SpaceToDepth", [node.input[0]], [blocks], blocksize=2)
    )
    node.input[0], node.input[1] = blocks, f"{tensor.name}_blocks"
    del node.attribute[:]
    border = [half // 2] * 2 + [(half - 1) // 2] * 2
    for key, value in (("kernel_shape", [half, half]), ("pads", border)):
        node.attribute.append(helper.make_attribute(key, value))


def _has_blocks(options: Mapping[str, Any], size: list[int]) -> bool:
    """Whether a convolution has stride 2 and nothing special, and its windows begin as blocks want it."""
    plain = {"group": 1, "dilations": [1, 1], "auto_pad": b"NOTSET"}
    wanted = {**plain, "strides": [2, 2], "pads": [size[0] // 2] * 4}
    return (
        size[0] == size[1]
        and size[0] % 4 == 3
        and all({**plain, **options}.get(k) == v for k, v in wanted.items())
    )


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep ONNX Runtime's hints to its developers out of the output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
