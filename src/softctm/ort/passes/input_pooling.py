"""Reducing an image once, ahead of all views and networks, where every network would begin by doing so."""

from __future__ import annotations

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import NodeProto, helper

from softctm.ort.graphs import Graph
from softctm.pair import PATCH_SIZE


def without_reduction(content: bytes) -> tuple[bytes, int]:
    """Take the averaging over blocks of k × k pixels, that a network begins with, out of it.

    Averages of blocks are the same however an image is laid, so that they can be taken before its views.

    Parameters
    ----------
    content : bytes
        A serialized ONNX model for images of 1024 × 1024.

    Returns
    -------
    content : bytes
        A model for images of 1024 / k × 1024 / k; `content` itself where the network does not begin so.
    factor : int
        k; 1 where the network is as it was.
    """
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError):
        return content, 1  # whoever opens it says what is wrong
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    images = [value for value in graph.input if value.name not in stored]
    if len(images) != 1:
        return content, 1
    (image,) = images
    readers = [node for node in graph.node if image.name in node.input]
    factor = _block(readers[0]) if len(readers) == 1 else 1
    sides = image.type.tensor_type.shape.dim[2:]
    nested = any(
        attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute
    )
    whole = not nested and len(sides) == 2 and all(side.dim_value in (0, PATCH_SIZE) for side in sides)
    if factor == 1 or not whole or readers[0].output[0] in {value.name for value in graph.output}:
        return content, 1
    (pooling,) = readers
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == pooling.output[0]:
                node.input[index] = image.name
    graph.node.remove(pooling)
    for side in sides:
        side.dim_value = PATCH_SIZE // factor
    return bytes(model.SerializeToString()), factor


def reducing_graph(factor: int) -> bytes:
    """Graph: `image` (1, C, 1024, 1024) float32 → its averages over blocks of factor × factor pixels."""
    graph = Graph()
    image = graph.input("image", np.float32, (1, "channels", PATCH_SIZE, PATCH_SIZE))
    sides = [factor, factor]
    return graph.model(graph.node("AveragePool", image, kernel_shape=sides, strides=sides))


def _block(node: NodeProto) -> int:
    """The side of the square blocks that a node averages over, each pixel in just one; 1 for others."""
    if node.op_type != "AveragePool":
        return 1
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    kernel, strides = given["kernel_shape"], given.get("strides")
    square = len(kernel) == 2 and kernel[0] == kernel[1] and kernel == strides
    plain = (
        not any(given.get("pads", ()))
        and given.get("auto_pad", b"NOTSET") == b"NOTSET"
        and set(given.get("dilations", ())) <= {1}
    )
    return int(kernel[0]) if square and plain and PATCH_SIZE % kernel[0] == 0 else 1
