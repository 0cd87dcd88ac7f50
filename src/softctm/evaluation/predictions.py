"""Reading files of Grand Challenge's form "Multiple points", as strictly as the challenge does."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from softctm.errors import InputError
from softctm.pair import PATCH_SIZE
from softctm.points import CellClass, CellPoints
from softctm.storage.text_files import read_json

_NAME = re.compile(r"image_([0-9]+)")
_KEYS = {"name", "point", "probability"}
_AXES = ("x", "y")
_SHOWN_FAULTS = 3


class FormatError(InputError):
    """A file is not of the challenge's form. `faults` names every fault, the message the first few."""

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        self.path = path
        self.faults = list(faults)
        more = len(self.faults) - _SHOWN_FAULTS
        listed = "; ".join(self.faults[:_SHOWN_FAULTS]) + (f"; and {more} more" if more > 0 else "")
        kind = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(
            f"{path}: {len(self.faults)} {kind} in the file's form: {listed}; correct what wrote it"
        )


def load_predictions(path: Path, num_images: int) -> list[CellPoints]:
    """Read a `cell_classification.json`.

    Parameters
    ----------
    path : Path
    num_images : int
        Number of pairs of the truth; `image_<i>` must lie in 0 … `num_images` − 1.

    Returns
    -------
    list of CellPoints
        One entry a pair, in the file's order within a pair; empty where the file does not mention the pair.

    Raises
    ------
    FormatError
        If anything is not as the challenge demands; it holds every fault.
    InputError
        If the file cannot be read.
    """
    return points_by_pair(read_json(path), num_images, Path(path))


def points_by_pair(document: Any, num_images: int, path: Path) -> list[CellPoints]:
    """Check a parsed document and sort its points by pair; see `load_predictions`."""
    faults = document_faults(document, num_images)
    if faults:
        raise FormatError(path, faults)
    points = document["points"]
    pair = np.array([int(cell["name"][len("image_") :]) for cell in points], np.intp)
    values = np.array([cell["point"] for cell in points], np.int32).reshape(-1, 3)
    score = np.array([cell["probability"] for cell in points], np.float32)
    order = np.argsort(pair, kind="stable")
    ends = np.searchsorted(pair[order], np.arange(1, num_images))
    return [
        CellPoints(values[rows, 0], values[rows, 1], values[rows, 2].astype(np.uint8), score[rows])
        for rows in np.split(order, ends)[:num_images]
    ]


def document_faults(document: Any, num_images: int) -> list[str]:
    """Every way in which a parsed file departs from the challenge's form; empty where there is none.

    `type` is "Multiple points", `version` 1.0, and each of `points` has exactly `name` (`image_<i>`, i below
    `num_images`), `point` (three integers: x and y 0 … 1023, class 1 or 2) and `probability` (a float,
    0 … 1). The number 1 is not a float, and true is not an integer.
    """
    if not isinstance(document, dict):
        return ["the whole must be an object with type, version and points"]
    faults = []
    if document.get("type") != "Multiple points":
        faults.append(f'type is {_short(document.get("type"))}, not "Multiple points"')
    version = document.get("version")
    if not isinstance(version, dict) or (version.get("major"), version.get("minor")) != (1, 0):
        faults.append(f'version is {_short(version)}, not {{"major": 1, "minor": 0}}')
    points = document.get("points")
    if not isinstance(points, list):
        return [*faults, "points is missing" if points is None else f"points is {_short(points)}, not a list"]
    for i, cell in enumerate(points):
        faults.extend(f"points[{i}]: {fault}" for fault in _cell_faults(cell, num_images))
    return faults


def _cell_faults(cell: Any, num_images: int) -> list[str]:
    """What is wrong with one element of `points`."""
    if not isinstance(cell, dict):
        return [f"{_short(cell)} is not an object with name, point and probability"]
    faults = [f"{key} is missing" for key in sorted(_KEYS - cell.keys())]
    faults += [f"{_short(key)} does not belong there" for key in sorted(cell.keys() - _KEYS)]
    if "name" in cell:
        found = _NAME.fullmatch(cell["name"]) if isinstance(cell["name"], str) else None
        if found is None:
            faults.append(f"name is {_short(cell['name'])}, not image_<number>")
        elif len(found[1]) > 18 or int(found[1]) >= num_images:
            faults.append(f"name is {_short(cell['name'])}, but there are {num_images} pairs, counted from 0")
    if "point" in cell:
        faults += _point_faults(cell["point"])
    # type() and not isinstance(), here and below: the challenge takes neither 1 for 1.0 nor true for 1.
    probability = cell.get("probability", 0.0)
    if type(probability) is not float or not 0.0 <= probability <= 1.0:
        faults.append(f"probability is {_short(probability)}, not a float in 0.0 … 1.0")
    return faults


def _point_faults(point: Any) -> list[str]:
    """What is wrong with one `[x, y, class]`."""
    if type(point) is not list or len(point) != 3:
        return [f"point is {_short(point)}, not a list [x, y, class]"]
    faults = [
        f"{axis} is {_short(value)}, not an integer in 0 … {PATCH_SIZE - 1}"
        for axis, value in zip(_AXES, point, strict=False)
        if type(value) is not int or not 0 <= value < PATCH_SIZE
    ]
    if type(point[2]) is not int or point[2] not in tuple(CellClass):
        faults.append(f"class is {_short(point[2])}, neither 1 (background cell) nor 2 (tumor cell)")
    return faults


def _short(value: Any) -> str:
    """A value for a message, on one line and never longer than a few words."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 40 else text[:37] + "…"
