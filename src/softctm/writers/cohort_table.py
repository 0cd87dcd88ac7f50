"""`cohort.csv`: one line per slide, failures with their reason."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_FIRST_COLUMNS = ("slide", "path", "status", "error")

TABLE_START = ",".join(_FIRST_COLUMNS).encode()
"""How every such table begins."""


@dataclass(frozen=True)
class TableColumn:
    """A column of `cohort.csv`.

    Attributes
    ----------
    name : str
    path : tuple of str
        Where `slide.json` holds it.
    """

    name: str
    path: tuple[str, ...]


@dataclass(frozen=True)
class PageColumn(TableColumn):
    """A column of `cohort.html`.

    Attributes
    ----------
    decimals : int
    is_plotted : bool
        Whether its distribution is drawn.
    highest : float or None
        Where the drawing ends; by default at the largest value.
    """

    decimals: int = 0
    is_plotted: bool = False
    highest: float | None = None


@dataclass(frozen=True)
class CohortColumns:
    """The numbers of what was looked for, in the table and on the page."""

    table: tuple[TableColumn, ...]
    page: tuple[PageColumn, ...]


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

    def number(self, path: Sequence[str]) -> Any:
        """One of the slide's numbers, by its place in the record; None where it is not known."""
        value: Any = self.record
        for name in path:
            value = value.get(name) if value is not None else None
        return value


def cohort_csv(rows: Sequence[CohortRow], columns: CohortColumns) -> bytes:
    """The table, UTF-8; empty where a number is not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        (
            *_FIRST_COLUMNS,
            *(column.name for column in columns.table),
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
                *(row.number(column.path) for column in columns.table),
                *(*mpp, slide.get("width"), slide.get("height")),
                *(record.get("seconds", {}).get("total"), "; ".join(record.get("warnings", ()))),
            )
        )
    return text.getvalue().encode("utf-8", "backslashreplace")
