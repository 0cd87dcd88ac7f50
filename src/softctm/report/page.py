"""The page's parts and its rendering: one HTML file that needs no other and no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from softctm import __version__
from softctm.report.templating import page_template, resource
from softctm.report.viewer import STOPS


@dataclass(frozen=True)
class Row:
    """A table's row; `pair` is the number of the viewer's entry that its name opens, if any."""

    cells: Sequence[str]
    pair: int | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows. `full` gives it the page's whole width."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    note: str = ""
    sortable: bool = False
    full: bool = False


@dataclass(frozen=True)
class Figure:
    """A plot as SVG, with a caption below and a description for those who cannot see it."""

    caption: str
    description: str
    svg: Markup
    full: bool = False


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `id` is its anchor."""

    id: str
    title: str
    blocks: Sequence[Table | Figure]
    intro: str = ""


@dataclass(frozen=True)
class Highlight:
    """One of the large figures at the top."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Tab:
    """How the viewer's list announces a pair."""

    name: str
    group: str
    detail: str
    tissue: str


@dataclass(frozen=True)
class Viewer:
    """The viewer's content: its tabs, and the data behind them (`pair_entry` and stops of all pairs)."""

    tabs: Sequence[Tab]
    entries: Sequence[Mapping[str, Any]]
    stops: Sequence[Mapping[str, Any]]
    choice: str
    pair_count: int
    with_truth: bool

    @property
    def best_stop(self) -> int | None:
        """The first stop with the highest mean F1 over all pairs; None without ground truth."""
        if not self.with_truth:
            return None
        curve = [stop["curve"] for stop in self.stops]
        return curve.index(max(curve))


@dataclass(frozen=True)
class Page:
    """Everything on the page."""

    title: str
    facts: Sequence[str]
    highlights: Sequence[Highlight]
    sections: Sequence[Section]
    viewer: Viewer | None = None
    warnings: Sequence[str] = field(default_factory=tuple)


def render(page: Page, made_on: datetime | None = None) -> str:
    """Render the page as one HTML document.

    Parameters
    ----------
    page : Page
    made_on : datetime, optional
        Date in the footer; today by default.

    Returns
    -------
    str
        Text from the input (names, organs, messages) is escaped, in the data as well as in the markup.
    """
    viewer = page.viewer if page.viewer is not None and page.viewer.tabs else None
    entries = viewer.entries if viewer else []
    regions = {(region["source"], region["kind"]) for entry in entries for region in entry["regions"]}
    return page_template("report.html.j2").render(
        title=page.title,
        facts=page.facts,
        summary=page.highlights,
        sections=page.sections,
        warnings=page.warnings,
        pairs=viewer.tabs if viewer else [],
        pair_count=viewer.pair_count if viewer else 0,
        choice=viewer.choice if viewer else "",
        with_truth=viewer is not None and viewer.with_truth,
        best_stop=viewer.best_stop if viewer else None,
        curve_label=f"Curve: {'mean F1' if viewer and viewer.with_truth else 'cells'}",
        last_stop=len(STOPS) - 1,
        tissue_sources=sorted({source for source, kind in regions if kind == "cancer"}),
        unknown_area=any(kind == "unknown" for _, kind in regions),
        data=_embedded({"pairs": entries, "stops": viewer.stops}) if viewer else "",
        css=Markup(resource("report.css")),
        script=Markup(resource("report.js")),
        version=__version__,
        made_on=(made_on or datetime.now(UTC)).strftime("%Y-%m-%d"),
    )


def _embedded(data: Any) -> Markup:
    """JSON that no string inside can end early or turn into markup."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign, code in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        text = text.replace(sign, code)
    return Markup(text)
