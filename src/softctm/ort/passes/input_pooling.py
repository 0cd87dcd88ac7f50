"""Hoist the input pooling that all networks of a stage share, so that it is done once, not for every view."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper

from softctm.ort.graphs import Graph


def input_pooling(model: onnx.ModelProto, side: int) -> int:
    """By how much a network averages its input over blocks of pixels before it does anything else.

    Averages over blocks are the same in every view, so that they can be taken before the views are made.

    Parameters
    ----------
    model : ModelProto
    side : int
        Pixels a side of the network's input.

    Returns
    -------
    int
        The blocks' side; 1 where the network does not begin so.
    """
    pooling = _pooling(model, side)
    return 1 if pooling is None else _block(pooling, side)


def remove_input_pooling(model: onnx.ModelProto, side: int) -> None:
    """Take the pooling out, in place: the network's input is then 1 / `input_pooling` as large."""
    pooling = _pooling(model, side)
    if pooling is None:
        return
    graph, factor, image = model.graph, _block(pooling, side), pooling.input[0]
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == pooling.output[0]:
                node.input[index] = image
    graph.node.remove(pooling)
    (value,) = (value for value in graph.input if value.name == image)
    for length in value.type.tensor_type.shape.dim[2:]:
        length.dim_value = side // factor


def pooling_graph(factor: int, side: int) -> bytes:
    """Graph: `image` (1, C, side, side) float32 → its averages over blocks of factor × factor pixels."""
    graph = Graph()
    image = graph.input("image", np.float32, (1, "channels", side, side))
    sides = [factor, factor]
    return graph.model(graph.node("AveragePool", image, kernel_shape=sides, strides=sides))


def _pooling(model: onnx.ModelProto, side: int) -> NodeProto | None:
    """The pooling node that a network begins with, where it can be taken out."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    images = [value for value in graph.input if value.name not in stored]
    if len(images) != 1:
        return None
    (image,) = images
    readers = [node for node in graph.node if image.name in node.input]
    lengths = image.type.tensor_type.shape.dim[2:]
    nested = any(
        attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute
    )
    whole = not nested and len(lengths) == 2 and all(length.dim_value in (0, side) for length in lengths)
    if len(readers) != 1 or not whole or readers[0].output[0] in {value.name for value in graph.output}:
        return None
    return readers[0] if _block(readers[0], side) > 1 else None


def _block(node: NodeProto, side: int) -> int:
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
    return int(kernel[0]) if square and plain and side % kernel[0] == 0 else 1
