"""16-bit networks: a float32 ONNX graph rewritten to compute in float16 between first and last convolution.

Tensor cores multiply 16-bit numbers and add up in 32 bits. So convolutions and matrix products are given
16-bit inputs, and what lies between two of them (activations, sums, pooling, resizing by bilinear weights)
passes the 16-bit values on. Everything before the first of them and behind the last stays in 32 bits: the
input, its normalization, the logits, their enlargement, a softmax. Inputs and outputs keep their types.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from softctm.ort.graphs import constants_of

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""What tensor cores do."""

# fmt: off
_BETWEEN = frozenset({
    "Add", "AveragePool", "Clip", "Concat", "DepthToSpace", "Dropout", "Elu", "Flatten",
    "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mul", "Pad",
    "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "SpaceToDepth", "Split", "Squeeze",
    "Sub", "Sum", "Transpose", "Unsqueeze",
})
# fmt: on
"""What may stay in 16 bits between two products: CUDA has 16-bit kernels for it, and it rounds no more than
storing its result does. Everything else, such as a softmax or a normalization, is 32-bit."""

_SHAPES = frozenset({"Shape", "Size"})
_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger"})


def to_float16(model: onnx.ModelProto) -> None:
    """Rewrite a network, in place, to compute in 16 bits where that is harmless; see the module.

    Inputs and outputs stay as they are. Weights that are stored in 16 bits and cast up where they are used,
    as this program's own export does, are taken as they are. A network without convolutions or products, or
    with 8-bit ones, is left alone.
    """
    kinds = {node.op_type for node in model.graph.node}
    if not kinds & _PRODUCTS or kinds & _QUANTIZED:
        return
    # Without 16-bit kernels before opset 12, Clip would leave the GPU.
    opset = max((entry.version for entry in model.opset_import if not entry.domain), default=1)
    between = _BETWEEN if opset >= 12 else _BETWEEN - {"Clip"}
    _Rewriting(shape_inference.infer_shapes(model).graph, model.graph, between).run()


class _Rewriting:
    """Rewrites one graph in place.

    A value of a 16-bit node gets a new name; its old name stays the name of the 32-bit value, which a cast
    provides where anything asks for it: a 32-bit node, the graph's output, or a subgraph.
    """

    def __init__(self, typed: onnx.GraphProto, graph: onnx.GraphProto, between: frozenset[str]) -> None:
        self._graph, self._between = graph, between
        values = (*typed.value_info, *typed.input, *typed.output)
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self._constants = constants_of(graph)
        self._source = {
            node.output[0]: node.input[0]
            for node in graph.node
            if node.op_type == "Cast" and self._types.get(node.input[0]) == TensorProto.FLOAT16
        }
        self._half = self._chosen()
        self._renamed = {
            name: f"{name}_float16"
            for index in self._half
            for name in graph.node[index].output
            if self._types.get(name) == TensorProto.FLOAT
        }
        self._made: dict[str, str] = {}
        self._nodes: list[NodeProto] = []

    def run(self) -> None:
        """Rename, add casts, drop what is no longer used."""
        nodes = list(self._graph.node)
        wanted = {value.name for value in self._graph.output}
        for index, node in enumerate(nodes):
            if index not in self._half and node.op_type not in _SHAPES:
                wanted.update(_used(node))
        for index, node in enumerate(nodes):
            if index in self._half:
                for position in self._converted(node):
                    node.input[position] = self._as_half(node.input[position])
                old = [name for name in node.output if name in self._renamed]
                node.output[:] = [self._renamed.get(name, name) for name in node.output]
                self._nodes.append(node)
                for name in old:
                    if name in wanted:
                        self._cast(self._renamed[name], name, TensorProto.FLOAT)
            else:
                if node.op_type in _SHAPES:  # of any type, so that nothing need be cast for them
                    node.input[0] = self._renamed.get(node.input[0], node.input[0])
                self._nodes.append(node)
        kept = _reachable(self._nodes, [value.name for value in self._graph.output])
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(kept)
        used = {name for node in kept for name in _used(node)}
        tensors = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(tensors)

    def _chosen(self) -> set[int]:
        """Indices of the nodes that compute in 16 bits."""
        nodes = list(self._graph.node)
        fed: set[str] = set()
        candidates = []
        for index, node in enumerate(nodes):
            floats = [node.input[position] for position in self._converted(node)]
            is_product = node.op_type in _PRODUCTS and bool(floats)
            values = [name for name in floats if not self._is_constant(name)]
            passes = node.op_type in self._between and bool(values) and all(name in fed for name in values)
            if is_product or passes:
                fed.update(node.output)
                candidates.append(index)
        half: set[int] = set()
        asked: set[str] = set()
        for index in reversed(candidates):
            node = nodes[index]
            if node.op_type in _PRODUCTS or any(name in asked for name in node.output):
                half.add(index)
                asked.update(node.input)
        return half

    def _converted(self, node: NodeProto) -> list[int]:
        """Which inputs of a node turn to 16 bits with it; of a resizing one, not its scales."""
        positions = range(1 if node.op_type == "Resize" else len(node.input))
        return [i for i in positions if self._types.get(node.input[i]) == TensorProto.FLOAT]

    def _is_constant(self, name: str) -> bool:
        return name in self._constants or self._source.get(name) in self._constants

    def _as_half(self, name: str) -> str:
        """Name of the 16-bit version of a 32-bit value, made where there is none yet."""
        if name in self._renamed or name in self._source:
            return self._renamed.get(name) or self._source[name]
        if name not in self._made:
            self._made[name] = f"{name}_as_float16"
            if name in self._constants:
                with np.errstate(over="ignore"):  # infinity is told when the network gives it
                    values = numpy_helper.to_array(self._constants[name]).astype(np.float16)
                self._graph.initializer.append(numpy_helper.from_array(values, self._made[name]))
            else:
                self._cast(name, self._made[name], TensorProto.FLOAT16)
        return self._made[name]

    def _cast(self, given: str, wanted: str, kind: int) -> None:
        self._nodes.append(helper.make_node("Cast", [given], [wanted], to=kind))


def _used(node: NodeProto) -> set[str]:
    """Names that a node reads, those inside its subgraphs included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names.update(name for inner in graph.node for name in _used(inner))
            names.update(value.name for value in graph.output)
    return names


def _reachable(nodes: list[NodeProto], outputs: Iterable[str]) -> list[NodeProto]:
    """The nodes that the outputs need, in order."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed |= _used(node)
            kept.append(node)
    return kept[::-1]
