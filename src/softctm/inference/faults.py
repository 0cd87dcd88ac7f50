"""Values that are not finite, told as an error that says where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from softctm.errors import PairError
from softctm.inference.ensemble import NotFiniteError
from softctm.model.model import Model


@contextmanager
def faults_named(model: Model, what: str) -> Iterator[None]:
    """Turn `NotFiniteError` into a PairError that names what was looked at, such as "pair 003"."""
    try:
        yield
    except NotFiniteError as error:
        remedy = "check the weights, or leave the pair out"
        if model.precision == "float16":
            remedy = "they may be too large for 16 bits, take --precision float32"
        raise PairError(f"{what}: the network {error} gave values that are not finite; {remedy}") from error
