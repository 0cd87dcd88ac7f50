"""Post-processing methods by name: one line per method, a file of its own each.

A model's manifest names a method and its settings; here the settings are checked and the method is made ready
to run where the maps lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from softctm.ort.runtime import Runtime, Value
from softctm.points import CellPoints
from softctm.postprocessing.hover import Hover, HoverDecoder
from softctm.postprocessing.peaks import PeakDecoder, Peaks
from softctm.postprocessing.watershed import Watershed, WatershedDecoder

Decoder = Callable[[Mapping[str, Value]], Any]
"""Maps by the name of their head, (1, classes, H, W) float32 on the device → what was found in them."""


@dataclass(frozen=True)
class Method:
    """One way to decode maps.

    Attributes
    ----------
    settings : type
        A frozen dataclass with a default for every field; it checks itself when made.
    decoder : callable
        (settings, runtime) → `Decoder`.
    """

    settings: type[Any]
    decoder: Callable[[Any, Runtime], Decoder]


METHODS: dict[str, Method] = {
    "peaks": Method(Peaks, PeakDecoder),
    "watershed": Method(Watershed, WatershedDecoder),
    "hover": Method(Hover, HoverDecoder),
}
"""Name in `model.json` → method."""


def settings_from(method: str, values: Mapping[str, Any]) -> Any:
    """A method's settings, checked.

    Raises
    ------
    ValueError
        If the method is not known, or a setting is; one line that names it.
    """
    if method not in METHODS:
        raise ValueError(f"postprocessing.method: '{method}' is not known; there are {', '.join(METHODS)}")
    names = [field.name for field in fields(METHODS[method].settings)]
    for name in values:
        if name not in names:
            raise ValueError(
                f"postprocessing.{name}: {method} has no such setting; it has {', '.join(names)}"
            )
    try:
        return TypeAdapter(METHODS[method].settings).validate_python(dict(values))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(["postprocessing", *(str(part) for part in fault["loc"])])
        raise ValueError(f"{where}: {fault['msg'].removeprefix('Value error, ')}") from error


def name_of(settings: Any) -> str:
    """The name of the method that a settings object belongs to."""
    return next(name for name, method in METHODS.items() if type(settings) is method.settings)


def open_decoder(settings: Any, runtime: Runtime) -> Decoder:
    """A method made ready to run where the maps lie."""
    return METHODS[name_of(settings)].decoder(settings, runtime)


def find_cells(probability: NDArray[np.float32], settings: Peaks | Watershed | None = None) -> CellPoints:
    """The cells in a map of probabilities, on the CPU.

    Parameters
    ----------
    probability : (3, H, W) float32
        None, background cell, tumor cell; 0.2 µm per pixel, both sides longer than four times the blur's σ.
    settings : Peaks or Watershed
        By default the authors' rule.

    Raises
    ------
    ValueError
        If the map has another shape, or values that are not finite.
    """
    if probability.ndim != 3 or probability.shape[0] != 3:
        raise ValueError(f"probability must be (3, H, W), not {probability.shape}")
    if not np.isfinite(probability).all():
        raise ValueError("probability holds values that are not finite")
    decoder, runtime = _on_cpu(settings if settings is not None else Peaks())
    maps = {"cells": runtime.value(probability[None].astype(np.float32, copy=False))}
    points: CellPoints = decoder(maps).points
    return points


@lru_cache(maxsize=64)
def _on_cpu(settings: Peaks | Watershed) -> tuple[Decoder, Runtime]:
    runtime = Runtime("cpu")
    return open_decoder(settings, runtime), runtime
