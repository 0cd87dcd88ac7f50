"""Where a cell patch lies in its tissue patch, from a pair's metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from softctm.errors import PairError
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP, WINDOW_SIZE, TissueWindow

RESOLUTION_TOLERANCE = 0.10
"""Relative difference from the nominal resolution beyond which a pair is warned about."""

_CORNERS = ("x_start", "y_start", "x_end", "y_end")
_OFFSETS = ("patch_x_offset", "patch_y_offset")


def tissue_window(metadata: Mapping[str, Any], name: str) -> TissueWindow:
    """Place the cell patch's 256 × 256 window in the tissue patch (method, row "crop").

    From the boxes `cell` and `tissue` (slide pixels), x₀ = ⌊1024 · (cell.x_start − tissue.x_start) /
    (tissue.x_end − tissue.x_start)⌋ and y₀ likewise; where no box is given, from the cell patch's relative
    center, x₀ = ⌊1024 · patch_x_offset − 128⌋. Computed in exact fractions, so that no rounding moves a
    window by a pixel.

    Parameters
    ----------
    metadata : mapping
        One entry of `metadata.json`.
    name : str
        The pair's name, for messages.

    Raises
    ------
    PairError
        If neither boxes nor offsets are there, a value is not a finite number, a box is empty, or the cell
        patch does not lie inside the tissue patch.
    """
    cell, tissue = _section(metadata, "cell", name), _section(metadata, "tissue", name)
    if any(corner in box for box in (cell, tissue) for corner in _CORNERS):
        x, y = _from_boxes(cell, tissue, name)
    elif any(offset in metadata for offset in _OFFSETS):
        x, y = (
            math.floor(PATCH_SIZE * _number(metadata, key, key, name) - Fraction(WINDOW_SIZE, 2))
            for key in _OFFSETS
        )
    else:
        raise PairError(
            f"pair {name}: its metadata hold neither boxes (x_start, y_start, x_end, y_end) nor "
            "patch_x_offset and patch_y_offset; add one of them"
        )
    try:
        return TissueWindow(x, y)
    except ValueError as error:
        raise PairError(
            f"pair {name}: the cell patch does not lie inside the tissue patch (its window would start at "
            f"x = {_short(x)}, y = {_short(y)} of 0 … {PATCH_SIZE - WINDOW_SIZE}); correct its metadata"
        ) from error


def resolution_warnings(metadata: Mapping[str, Any], name: str) -> list[str]:
    """Say where a pair's resolution contradicts the nominal 0.2 and 0.8 µm per pixel by more than 10 %.

    A patch's resolution is its `resized_mpp_x`, else its box's width × the slide's `mpp_x` / 1024 (y
    likewise). The slide's `mpp_x` alone says nothing about the patch. Unknown resolutions are not warned
    about.

    Returns
    -------
    list of str
        One line a contradiction; empty where all is well.
    """
    warnings = []
    for kind, nominal in (("cell", CELL_MPP), ("tissue", TISSUE_MPP)):
        section = metadata.get(kind)
        if not isinstance(section, Mapping):
            continue
        for axis in ("x", "y"):
            key = f"resized_mpp_{axis}"
            if section.get(key) is not None:
                mpp, source = _finite(section[key]), f"{kind}.{key}"
                if mpp is None or mpp <= 0:
                    warnings.append(f"pair {name}: {source} is not a positive number; resolution not checked")
                    continue
            else:
                mpp, source = _mpp_of_box(section, metadata, axis), f"{kind} box × mpp_{axis} / {PATCH_SIZE}"
                if mpp is None:
                    continue
            as_float = _float_of(mpp)
            # The last term forgives the rounding of 0.22 / 0.2, which is exactly 10 % on paper.
            if abs(as_float / nominal - 1) > RESOLUTION_TOLERANCE + 1e-9:
                warnings.append(
                    f"pair {name}: the {kind} patch has {as_float:.3g} µm per pixel ({source}) instead of "
                    f"{nominal}; cells may be missed: resample it"
                )
                break
    return warnings


def _from_boxes(cell: Mapping[str, Any], tissue: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Top left corner of the window from the two boxes."""
    start = []
    for axis in ("x", "y"):
        first, last = f"{axis}_start", f"{axis}_end"
        c0, c1 = (_number(cell, key, f"cell.{key}", name) for key in (first, last))
        t0, t1 = (_number(tissue, key, f"tissue.{key}", name) for key in (first, last))
        for kind, low, high in (("cell", c0, c1), ("tissue", t0, t1)):
            if high <= low:
                raise PairError(
                    f"pair {name}: the {kind} box has no extent: {kind}.{last} is not larger than "
                    f"{kind}.{first}; correct its metadata"
                )
        if c0 < t0 or c1 > t1:
            raise PairError(
                f"pair {name}: the cell patch does not lie inside the tissue patch: {axis} {_short(c0)} … "
                f"{_short(c1)} against {_short(t0)} … {_short(t1)}; correct its metadata"
            )
        start.append(math.floor(PATCH_SIZE * (c0 - t0) / (t1 - t0)))
    return start[0], start[1]


def _section(metadata: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    """The object under `key`; empty where it is absent."""
    section = metadata.get(key, {})
    if not isinstance(section, Mapping):
        raise PairError(f"pair {name}: {key} in its metadata must be an object with x_start, y_start, …")
    return section


def _number(values: Mapping[str, Any], key: str, label: str, name: str) -> Fraction:
    """A finite number, exactly; anything else is an error that names it."""
    if key not in values:
        raise PairError(f"pair {name}: {label} is missing from its metadata; add it")
    number = _finite(values[key])
    if number is None:
        raise PairError(
            f"pair {name}: {label} in its metadata is {_short(values[key])}, not a number; correct it"
        )
    return number


def _finite(value: Any) -> Fraction | None:
    """The exact value of a finite JSON number; None for text, booleans, null, NaN and infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(_float_of(value)):
        return None
    return Fraction(value)


def _float_of(value: int | float | Fraction) -> float:
    """`float(value)`, infinite where it is too large for that."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _mpp_of_box(section: Mapping[str, Any], metadata: Mapping[str, Any], axis: str) -> Fraction | None:
    """Resolution from the box's width and the slide's resolution; None where either is unknown."""
    values = [
        _finite(value)
        for value in (section.get(f"{axis}_start"), section.get(f"{axis}_end"), metadata.get(f"mpp_{axis}"))
    ]
    if values[0] is None or values[1] is None or values[2] is None:
        return None
    return (values[1] - values[0]) * values[2] / PATCH_SIZE


def _short(value: Any) -> str:
    """A value for a message, never longer than a few words."""
    if isinstance(value, Fraction):
        value = _float_of(value.numerator) if value.denominator == 1 else float(value)
        return f"{value:g}" if abs(value) >= 1e15 else f"{value:.15g}"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
