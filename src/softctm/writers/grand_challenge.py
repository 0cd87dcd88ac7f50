"""`cell_classification.json`: Grand Challenge's "Multiple points", as OCELOT 2023 reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from softctm.points import CellPoints

FILE_NAME = "cell_classification.json"


def points_document(pairs: Sequence[CellPoints | None]) -> dict[str, Any]:
    """All pairs' cells in the challenge's form (method, row "output").

    Parameters
    ----------
    pairs : sequence of CellPoints or None
        One a pair in input order; None for a pair that failed, which keeps its number.

    Returns
    -------
    dict
        `{"type": "Multiple points", "version": …, "points": [{"name": "image_<i>", "point": [x, y, class],
        "probability": p}, …]}`. A probability is the shortest decimal that reads back as the same float32.
    """
    points = [
        {"name": f"image_{index}", "point": [int(x), int(y), int(label)], "probability": float(str(score))}
        for index, cells in enumerate(pairs)
        if cells is not None
        for x, y, label, score in zip(cells.x, cells.y, cells.label, cells.score, strict=True)
    ]
    return {"type": "Multiple points", "version": {"major": 1, "minor": 0}, "points": points}
