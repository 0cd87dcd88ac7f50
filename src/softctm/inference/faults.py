"""Values that are not finite, told as an error that says where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from softctm.errors import PairError
from softctm.inference.ensemble import NotFiniteError
from softctm.model.model import Model


@contextmanager
def faults_named(model: Model, kind: str, name: str = "") -> Iterator[None]:
    """Turn `NotFiniteError` into a PairError.

    Parameters
    ----------
    model : Model
    kind : str
        What can be left out where the networks fail on it: "pair", "image" or "slide".
    name : str
        What was looked at, such as "pair 003"; "" where the caller names it.
    """
    try:
        yield
    except NotFiniteError as error:
        remedy = f"check the weights, or leave the {kind} out"
        if model.precision == "float16":
            remedy = "they may be too large for 16 bits, take --precision float32"
        where = f"{name}: " if name else ""
        raise PairError(f"{where}the network {error} gave values that are not finite; {remedy}") from error
