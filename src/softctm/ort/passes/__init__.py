"""Rewriting a network as it is opened: parsed once, through these passes in order, into a session.

| pass | when | what it does |
| --- | --- | --- |
| `remove_input_pooling` | a stage's networks share their first step | it is done once, ahead of the views |
| `to_float16` | `--precision float16` | convolutions and products compute in 16 bits |
| `split_output_resize` | on processors, 32-bit and 8-bit | the resize at the end works map by map |

Each takes a `ModelProto` and changes it in place, or leaves it alone where it does not fit; what the network
computes stays the same, within rounding.
"""

from __future__ import annotations

from typing import Literal

import onnx

from softctm.choices import Precision
from softctm.ort.passes.float16 import to_float16
from softctm.ort.passes.input_pooling import input_pooling, pooling_graph, remove_input_pooling
from softctm.ort.passes.output_resize import split_output_resize

__all__ = ["input_pooling", "pooling_graph", "remove_input_pooling", "rewrite"]


def rewrite(model: onnx.ModelProto, precision: Precision, device: Literal["cpu", "cuda"]) -> None:
    """Apply the passes that a precision and a device ask for, in place."""
    if precision == "float16":
        to_float16(model)
    elif device == "cpu":
        split_output_resize(model)
