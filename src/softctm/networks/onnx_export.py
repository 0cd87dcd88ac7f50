"""PyTorch modules as ONNX files, checked against PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from softctm.errors import ModelError
from softctm.storage.files import write_bytes_atomically

PROTOBUF_LIMIT = 2**31 - 2**20
"""Bytes that one ONNX file can hold; networks of more would need external data, which is refused."""
_SMALL = 1024
"""Tensors with fewer values are not worth storing in 16 bits."""


def export_onnx(
    module: nn.Module,
    example: Tensor,
    outputs: Sequence[str],
    path: Path,
    *,
    always_halve: bool = False,
    limit: int = PROTOBUF_LIMIT,
    facts: Mapping[str, str] | None = None,
) -> bool:
    """Write a module as ONNX: the batch may have any size, other sizes are the example's.

    Weights are stored as they are, 32-bit, or in 16 bits where that is asked for or the file would be too
    large for ONNX.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode; returns as many tensors as `outputs` names.
    example : (B, C, H, W) float32
    outputs : sequence of str
    path : Path
    always_halve : bool
        Store weights in 16 bits.
    limit : int
        Largest file, bytes.
    facts : mapping, optional
        Metadata of the file.

    Returns
    -------
    bool
        Whether weights are stored in 16 bits.

    Raises
    ------
    ModelError
        If the network is too large for one file even so.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["image"],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
        )
    assert program is not None
    model = program.model_proto
    forget_sources(model)
    halved = always_halve or _size(model) > limit
    if halved:
        store_as_float16(model)
    if _size(model) > limit:
        raise ModelError(
            f"{path}: would take {_size(model) / 2**30:.1f} GB even with 16-bit weights, more than one ONNX "
            "file can hold; import a smaller network"
        )
    onnx.checker.check_model(model)  # not before: it cannot look at more than one file holds
    helper.set_model_props(model, dict(facts or {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, model.SerializeToString())
    return halved


def forget_sources(model: onnx.ModelProto) -> None:
    """Drop what PyTorch says of each node's source, in place: it names files of the exporting machine."""
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _size(model: onnx.ModelProto) -> int:
    """Bytes of the weights, which are nearly all of the file."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def store_as_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep weights of convolutions and all larger ones as float16, cast back to float32 where used; in place.

    ONNX Runtime folds the casts away when it loads the file: arithmetic and speed stay the same.
    """
    graph = model.graph
    of_convolutions = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    for tensor in graph.initializer:
        is_large = np.prod(tensor.dims) >= _SMALL or tensor.name in of_convolutions
        if tensor.data_type != TensorProto.FLOAT or not is_large:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_float16")
        tensor.CopyFrom(half)
        graph.node.insert(0, helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    return model


def largest_difference(module: nn.Module, path: Path, example: Tensor) -> float:
    """Between what PyTorch and ONNX Runtime compute, over the largest value of the output in question."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    computed = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    with torch.inference_mode():
        expected = [value.numpy() for value in module(example)]
    return max(
        float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-6))
        for ours, theirs in zip(computed, expected, strict=True)
    )
