"""How much arithmetic a network costs, and how much the machine can do at best."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from softctm.graphs import Graph
from softctm.pair import PATCH_SIZE
from softctm.runtime import Runtime


def operations(model: bytes) -> int:
    """Multiplications and additions of one image through a network's convolutions and products."""
    graph_model = onnx.load_model_from_string(model)
    shape = graph_model.graph.input[0].type.tensor_type.shape
    for axis, length in ((0, 1), (2, PATCH_SIZE), (3, PATCH_SIZE)):
        shape.dim[axis].Clear()
        shape.dim[axis].dim_value = length
    for output in graph_model.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(graph_model, data_prop=True).graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            shapes[node.output[0]] = list(numpy_helper.to_array(node.attribute[0].t).shape)
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += 2 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            total += 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return total


def best_rates(runtime: Runtime, repeats: int = 5) -> dict[str, float]:
    """Operations a second in a large matrix product and a large convolution, run as the networks are."""
    side, channels, pixels = (2048, 256, 128) if runtime.device == "cpu" else (8192, 512, 256)
    random = np.random.default_rng(0)

    def rate(graph: Graph, output: str, array: np.ndarray[Any, Any], count: int) -> float:
        session, value = runtime.network(graph.model(output), "machine's peak"), runtime.value(array)
        session(value)
        best = math.inf
        for _ in range(repeats):
            start = time.perf_counter()
            session(value)
            best = min(best, time.perf_counter() - start)
        return count / best

    product = Graph()
    matrix = random.random((side, side), np.float32)
    multiplied = product.node(
        "MatMul", product.input("x", np.float32, (side, side)), product.constant(matrix)
    )
    convolution = Graph()
    image = random.random((1, channels, pixels, pixels), np.float32)
    kernel = convolution.constant(random.random((channels, channels, 3, 3), np.float32))
    convolved = convolution.node(
        "Conv", convolution.input("x", np.float32, image.shape), kernel, pads=[1] * 4
    )
    return {
        "matrix_product": rate(product, multiplied, matrix, 2 * side**3),
        "convolution": rate(convolution, convolved, image, 2 * 9 * channels**2 * pixels**2),
    }
