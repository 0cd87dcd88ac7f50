"""Split the resize at a network's end into one for each map, which on processors costs half as much.

ONNX Runtime computes convolutions on processors in blocks of 16 channels, and goes on so while it can. A
network that ends by resizing three maps then resizes sixteen, at full resolution.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from softctm.ort.graphs import constants_of


def split_output_resize(model: onnx.ModelProto) -> None:
    """Give the `Resize` nodes at each output its maps as single images, in place; the results are the same.

    An output that does not end so, or does not say how many maps it has, is left as it is.
    """
    for output in model.graph.output:
        _split(model.graph, output)


def _split(graph: onnx.GraphProto, output: onnx.ValueInfoProto) -> None:
    chain = _last_resizes(graph, output.name)
    shape = output.type.tensor_type.shape.dim
    if not chain or len(shape) != 4 or not shape[1].dim_value:
        return
    first, last = chain[0], chain[-1]
    maps, resized, result = f"{first.input[0]}_maps", f"{last.output[0]}_maps", last.output[0]
    # 0 keeps a length, -1 takes what is left: images times maps, and back.
    for name, second in ((maps, 1), (resized, shape[1].dim_value)):
        lengths = np.array([-1, second, 0, 0], np.int64)
        graph.initializer.append(numpy_helper.from_array(lengths, f"{name}_shape"))
    flatten = helper.make_node("Reshape", [first.input[0], f"{maps}_shape"], [maps])
    graph.node.insert(list(graph.node).index(first), flatten)
    first.input[0], last.output[0] = maps, resized
    graph.node.append(helper.make_node("Reshape", [resized, f"{resized}_shape"], [result]))
    # Shapes that were noted for the values between no longer hold.
    between = {node.output[0] for node in chain}
    noted = [value for value in graph.value_info if value.name not in between]
    del graph.value_info[:]
    graph.value_info.extend(noted)


def _last_resizes(graph: onnx.GraphProto, name: str) -> list[NodeProto]:
    """The `Resize` nodes between a last convolution and the output, if they scale height and width only."""
    makers = {name: node for node in graph.node for name in node.output}
    readers = [name for node in graph.node for name in node.input]
    constants = constants_of(graph)
    chain: list[NodeProto] = []
    while (node := makers.get(name)) is not None and node.op_type == "Resize":
        scales = constants.get(node.input[2]) if len(node.input) == 3 else None
        if scales is None or list(numpy_helper.to_array(scales)[:2]) != [1, 1]:
            break
        if readers.count(name) != (1 if chain else 0):
            break
        chain.insert(0, node)
        name = node.input[0]
    return chain if node is not None and node.op_type in ("Conv", "Resize") else []
