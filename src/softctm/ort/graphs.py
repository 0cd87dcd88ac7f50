"""Builds the small ONNX graphs between the networks, so that every step runs where the networks do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

Shape = Sequence[int | str]
"""Axis lengths; a name stands for a length that is known only when the graph runs."""


class Graph:
    """An ONNX graph under construction: each call adds a node and returns its value's name.

    >>> graph = Graph()
    >>> half = graph.node("Mul", graph.input("x", np.float32, (2,)), graph.constant(np.float32(0.5)))
    >>> model = graph.model(half)
    """

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._inputs: list[Any] = []
        self._constants: list[TensorProto] = []

    def input(self, name: str, dtype: type[np.generic], shape: Shape) -> str:
        """Declare an input; the inputs' order is the order of these calls."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        """Store an array in the graph."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def axes(self, *values: int) -> str:
        """Store a list of whole numbers: axes, starts, shapes."""
        return self.constant(np.array(values, np.int64))

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output."""
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def model(self, *outputs: str) -> bytes:
        """Close the graph and serialize it; the outputs keep the order given."""
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self._nodes, "softctm", self._inputs, results, self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        model: ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        return bytes(model.SerializeToString())


def constants_of(graph: GraphProto) -> dict[str, TensorProto]:
    """The tensors that a network's graph holds, stored ones and constants, by the names that nodes read."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return constants
