"""`cohort.csv`: a line a slide, failures with their reason."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PARTS = ("", "cancer_area", "outside_cancer_area")
_NUMBERS = (
    "background_cells",
    "tumor_cells",
    "tumor_purity",
    "background_cells_per_mm2",
    "tumor_cells_per_mm2",
)


@dataclass
class CohortRow:
    """A slide of a cohort.

    Attributes
    ----------
    name, path : str
    record : mapping or None
        What its `slide.json` holds, once it is done.
    error : str or None
        Why it failed.
    """

    name: str
    path: str
    record: Mapping[str, Any] | None = None
    error: str | None = None

    @property
    def status(self) -> str:
        """`complete`, `failed` or `waiting`."""
        return "complete" if self.record else "failed" if self.error else "waiting"

    def number(self, name: str, part: str = "") -> Any:
        """One of the slide's numbers, of the whole or of a part of it; None where it is not known."""
        if self.record is None:
            return None
        return (self.record[part] if part else self.record).get(name)


def cohort_csv(rows: Sequence[CohortRow]) -> bytes:
    """The table, UTF-8; empty where a number is not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = [(name, part) for part in _PARTS for name in _NUMBERS]
    writer.writerow(
        (
            *("slide", "path", "status", "error", "tissue_mm2", "cancer_area_mm2"),
            *(f"{part}_{name}" if part else name for name, part in numbers),
            *("mpp_x", "mpp_y", "width", "height", "seconds", "warnings"),
        )
    )
    for row in rows:
        record = row.record or {}
        slide = record.get("slide", {})
        mpp = slide.get("mpp", (None, None))
        writer.writerow(
            (
                *(row.name, row.path, row.status, row.error),
                *(row.number("tissue_mm2"), row.number("mm2", "cancer_area")),
                *(row.number(name, part) for name, part in numbers),
                *(*mpp, slide.get("width"), slide.get("height")),
                *(record.get("seconds", {}).get("total"), "; ".join(record.get("warnings", ()))),
            )
        )
    return text.getvalue().encode("utf-8", "backslashreplace")
