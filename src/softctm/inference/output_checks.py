"""Whether networks take and give what the manifest says: shapes when opened, values on the first image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from softctm.errors import ModelError
from softctm.model.manifest import Head
from softctm.model.model import Stage
from softctm.ort.runtime import Port, Session

_TOLERANCE = 1e-3
"""How far probabilities may lie outside of 0 … 1, and their sum from 1."""


def check_ports(stage: Stage, sessions: Sequence[Session], input_side: int) -> None:
    """Refuse networks whose input and outputs are not those that the manifest names.

    Parameters
    ----------
    stage : Stage
    sessions : sequence of Session
        Its networks, opened.
    input_side : int
        Pixels a side of what they take now, after a shared pooling was hoisted.

    Raises
    ------
    ModelError
        It names the network and the input or output.
    """
    channels, side = len(stage.input.channels), stage.input.size
    for session in sessions:
        if len(session.inputs) != 1:
            raise ModelError(f"{session.name}: has {len(session.inputs)} inputs where one image is given")
        (image,) = session.inputs
        _check_port(session.name, image, input_side, side)
        if image.shape[1] not in (None, channels):
            raise ModelError(
                f"{session.name}: wants {image.shape[1]} channels where {channels} are given "
                f"({', '.join(stage.input.channels)}); the networks of this model do not belong together"
            )
        for head, index in zip(stage.heads, head_indices(stage, session), strict=True):
            port = session.outputs[index]
            _check_port(session.name, port, side // head.stride, side // head.stride)
            if port.shape[1] not in (None, head.channels):
                what = f"classes where {head.channels} are wanted ({', '.join(head.classes)})"
                if not head.classes:
                    what = f"numbers a vector where {head.channels} are wanted ({head.name})"
                raise ModelError(f"{session.name}: gives {port.shape[1]} {what}")


def head_indices(stage: Stage, session: Session) -> list[int]:
    """Which output of a network is which head; a single output needs no name.

    Raises
    ------
    ModelError
        If a head has no output.
    """
    names = [port.name for port in session.outputs]
    if len(names) == 1 and len(stage.heads) == 1:
        return [0]
    missing = [head.name for head in stage.heads if head.name not in names]
    if missing:
        raise ModelError(
            f"{session.name}: has no output '{missing[0]}', which model.json names as a head; it has "
            f"{', '.join(names)}"
        )
    return [names.index(head.name) for head in stage.heads]


def agreed(sessions: Sequence[Session], what: str, length: Callable[[Session], int | None]) -> int | None:
    """The one value that all networks of a stage share, None where all leave it open.

    Raises
    ------
    ModelError
        If they contradict each other.
    """
    values = {length(session): session.name for session in reversed(sessions)}
    values.pop(None, None)
    if len(values) > 1:
        said = ", ".join(f"{name} {value}" for value, name in values.items())
        raise ModelError(f"the networks of one stage must share their number of {what}: {said}")
    return next(iter(values), None)


def check_values(values: NDArray[np.float32], head: Head, stage: str, network: str) -> bool:
    """Refuse logits that are called probabilities, and probabilities that are called logits.

    Parameters
    ----------
    values : (N, classes, H, W) float32
        What a network gave for an image.

    Returns
    -------
    bool
        Whether the values say anything: False where they are not all finite.

    Raises
    ------
    ModelError
        It says what to write into `model.json`.
    """
    if not np.isfinite(values).all():
        return False
    if head.activation == "none":
        return True
    low, high = float(values.min()), float(values.max())
    sums = values.sum(axis=1)
    are_probabilities = (
        low >= -_TOLERANCE and high <= 1 + _TOLERANCE and float(np.abs(sums - 1).max()) <= _TOLERANCE
    )
    if are_probabilities == (head.activation == "probabilities"):
        return True
    found = "probabilities" if are_probabilities else "logits"
    raise ModelError(
        f"{network}: gives values from {low:.3g} to {high:.3g} (sums over the classes from "
        f"{float(sums.min()):.3g} to {float(sums.max()):.3g}), which are {found}, not {head.activation}; "
        f'write "activation": "{found}" for stages.{stage}.heads into model.json'
    )


def _check_port(network: str, port: Port, side: int, whole: int) -> None:
    if port.kind != "tensor(float)" or len(port.shape) != 4:
        raise ModelError(f"{network}: {port.name} must be 32-bit floats, N × C × {whole} × {whole}")
    if any(length not in (None, side) for length in port.shape[2:]):
        raise ModelError(
            f"{network}: {port.name} has {port.shape[3]} × {port.shape[2]} pixels; "
            f"export the network for {whole} × {whole}"
        )
