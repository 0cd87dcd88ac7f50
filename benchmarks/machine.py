"""How much arithmetic and memory a network costs, and how much the machine can do at best."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, shape_inference

from softctm.ort.graphs import Graph, constants_of
from softctm.ort.passes.float16 import to_float16
from softctm.ort.runtime import Arithmetic, Runtime, Session
from softctm.pair import PATCH_SIZE

_BYTES = {"exact": 4, "float32": 4, "float16": 2}


def operations(model: bytes) -> int:
    """Multiplications and additions of one image through a network's convolutions and products."""
    graph = _with_shapes(model, batch=1)
    shapes = _shapes(graph)
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += 2 * math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("MatMul", "Gemm"):
            total += 2 * math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return total


def memory_estimate(networks: list[bytes], batch: int, arithmetic: Arithmetic) -> int:
    """Bytes that networks of one detector need at least on the device, by adding up sizes.

    All weights, and the most that any network keeps at one time: while a node runs, its inputs, its outputs
    and what later nodes will read. Libraries' own workspace comes on top.
    """
    weights = peak = 0
    for network in networks:
        graph = _with_shapes(network, batch, arithmetic)
        stored = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
        weights += sum(stored.values()) * _BYTES[arithmetic]
        shapes = _shapes(graph)
        values = (*graph.value_info, *graph.input, *graph.output)
        size = {
            value.name: math.prod(shapes[value.name])
            * helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).itemsize
            for value in values
        }
        last = {name: index for index, node in enumerate(graph.node) for name in node.input}
        last |= {output.name: len(graph.node) for output in graph.output}
        live = sum(size[value.name] for value in graph.input)
        peak = max(peak, live)
        for index, node in enumerate(graph.node):
            # What is made of weights alone is folded into them when the network is loaded.
            if not set(node.input) <= stored.keys():
                live += sum(size.get(name, 0) for name in node.output if name in last)
                peak = max(peak, live)
                done = {name for name in (*node.input, *node.output) if last.get(name) == index}
                live -= sum(size.get(name, 0) for name in done - stored.keys())
            else:
                stored.update(dict.fromkeys(node.output, 0))
    return weights + peak


def best_rates(runtime: Runtime, arithmetic: Arithmetic, repeats: int = 5) -> dict[str, float]:
    """Operations a second in large matrix products and large convolutions, run as the networks are."""
    on_cpu = runtime.device == "cpu"
    side, channels, pixels, layers = (2048, 256, 128, 1) if on_cpu else (8192, 512, 256, 4)
    random = np.random.default_rng(0)

    def rate(kind: str, image: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], count: int) -> float:
        graph = Graph()
        value, constant = graph.input("x", np.float32, image.shape), graph.constant(weights)
        for _ in range(layers):  # one after the other, so that changing to 16 bits and back hardly counts
            value = graph.node(kind, value, constant, **({"pads": [1] * 4} if kind == "Conv" else {}))
        model = onnx.load_model_from_string(graph.model(value))
        if arithmetic == "float16":
            to_float16(model)
        session = Session(
            model.SerializeToString(), "machine's peak", runtime.device, runtime.threads, arithmetic
        )
        given = runtime.value(image)
        session(given)
        best = math.inf
        for _ in range(repeats):
            start = time.perf_counter()
            session(given)
            best = min(best, time.perf_counter() - start)
        return layers * count / best

    def normal(*shape: int, inputs: int) -> np.ndarray[Any, Any]:
        return random.standard_normal(shape, np.float32) / np.float32(math.sqrt(inputs))

    kernel = normal(channels, channels, 3, 3, inputs=9 * channels)
    image = normal(1, channels, pixels, pixels, inputs=1)
    return {
        "matrix_product": rate(
            "MatMul", normal(side, side, inputs=1), normal(side, side, inputs=side), 2 * side**3
        ),
        "convolution": rate("Conv", image, kernel, 2 * 9 * channels**2 * pixels**2),
    }


def host_memory_peak() -> int:
    """Largest resident memory that this process has had, MB."""
    # Not getrusage's figure: a process inherits that from the one that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))


def device_memory_in_use() -> int | None:
    """Memory in use on the first GPU, by any process, MB; None without one.

    ONNX Runtime's arenas never give memory back, so that what a process has added by its end is its peak.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(answer.stdout.split()[0]) if answer.returncode == 0 and answer.stdout.split() else None


def _with_shapes(model: bytes, batch: int, arithmetic: Arithmetic = "float32") -> onnx.GraphProto:
    """A network's graph with every value's shape, for a batch of whole patches."""
    loaded = onnx.load_model_from_string(model)
    if arithmetic == "float16":
        to_float16(loaded)
    shape = loaded.graph.input[0].type.tensor_type.shape
    for axis, length in ((0, batch), (2, PATCH_SIZE), (3, PATCH_SIZE)):
        shape.dim[axis].Clear()
        shape.dim[axis].dim_value = length
    for output in loaded.graph.output:
        output.type.tensor_type.ClearField("shape")
    return shape_inference.infer_shapes(loaded, data_prop=True).graph


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    return shapes | {name: list(tensor.dims) for name, tensor in constants_of(graph).items()}
