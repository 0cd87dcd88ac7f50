"""`cohort.html`: one self-contained page of a cohort: sortable table, overviews that open, distributions."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np
from PIL import Image

from softctm.progress import counted
from softctm.writers.cohort_table import CohortColumns, CohortRow, PageColumn

PAGE_GENERATOR = b'<meta name="generator" content="SoftCTM slides">'
"""What tells such a page from others."""

_MOST_PICTURES = 200
"""Slides up to which the pictures are in the page, some 100 kB each; beyond, small ones link to the files."""
_LARGE, _SMALL = 1400, 200
_BINS = 20


def cohort_page(rows: Sequence[CohortRow], overviews: Mapping[str, Path], columns: CohortColumns) -> bytes:
    """The page.

    Parameters
    ----------
    rows : sequence of CohortRow
    overviews : mapping of str to Path
        The pictures of the slides that are done, by name, beside the page in their folders.
    columns : CohortColumns

    Returns
    -------
    bytes
        HTML that needs no network and, up to 200 slides, no other file.
    """
    done = [row for row in rows if row.record is not None]
    failed = [row for row in rows if row.error is not None]
    heads = [_head("Slide", "text"), *(_head(column.name, "number") for column in columns.page)]
    waiting = len(rows) - len(done) - len(failed)
    summary = f"{len(done)} of {counted(len(rows), 'slide')}" + (f", {len(failed)} failed" if failed else "")
    page = Template(resources.files("softctm.writers").joinpath("templates/cohort.html").read_text("utf-8"))
    return page.substitute(
        title=f"Cohort of {len(rows)} slide{'s' if len(rows) != 1 else ''}",
        summary=summary + (f", {waiting} still waiting" if waiting else ""),
        plots=_plots(done, columns.page) if len(done) > 1 else "",
        heads="".join(heads),
        rows="\n".join(
            _row(row, columns.page, overviews.get(row.name), len(done) <= _MOST_PICTURES) for row in done
        ),
        failures=_failures(failed) if failed else "",
    ).encode("utf-8", "backslashreplace")


def _head(name: str, kind: str) -> str:
    return f'<th scope="col"><button type="button" data-kind="{kind}">{escape(name)}</button></th>'


def _row(row: CohortRow, columns: Sequence[PageColumn], overview: Path | None, with_pictures: bool) -> str:
    cells = [f"<td>{_picture(row.name, overview, with_pictures)}</td>"]
    cells.append(f'<td data-value="{escape(row.name)}">{escape(row.name)}</td>')
    for column in columns:
        value = row.number(column.path)
        shown = "–" if value is None else f"{value:,.{column.decimals}f}"
        cells.append(f'<td data-value="{"" if value is None else value}">{shown}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _picture(name: str, path: Path | None, large: bool) -> str:
    if path is None or not path.is_file():
        return ""
    buffer = io.BytesIO()
    try:
        with Image.open(path) as image:
            image.thumbnail((_LARGE, _LARGE) if large else (_SMALL, _SMALL))
            image.convert("RGB").save(buffer, "JPEG", quality=82)
    except (OSError, SyntaxError, ValueError):  # damaged; Pillow raises all of them
        return ""
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    tag = f'<img src="{source}" alt="Overview of {escape(name)}" loading="lazy">'
    if large:
        return f'<button type="button" data-name="{escape(name)}">{tag}</button>'
    return f'<a href="{quote(os.fsencode(path.parent.name))}/{quote(path.name)}" target="_blank">{tag}</a>'


def _failures(failed: Sequence[CohortRow]) -> str:
    rows = "\n".join(
        f'<tr><td>{escape(row.name)}</td><td class="reason">{escape(row.error or "")}</td></tr>'
        for row in failed
    )
    return (
        '<h2>Failed</h2>\n<div class="scroll"><table id="failures"><thead><tr><th scope="col">Slide</th>'
        f'<th scope="col">Reason</th></tr></thead><tbody>\n{rows}\n</tbody></table></div>'
    )


def _plots(done: Sequence[CohortRow], columns: Sequence[PageColumn]) -> str:
    figures = []
    for column in columns:
        values = [value for row in done if (value := row.number(column.path)) is not None]
        if column.is_plotted and values:
            figures.append(_histogram(column, np.array(values, float)))
    return f'<h2>Distributions</h2>\n<div class="plots">{"".join(figures)}</div>'


def _histogram(column: PageColumn, values: np.ndarray) -> str:
    """Slides a bin, as an SVG with its axis, from 0 on."""
    name, decimals = column.name, column.decimals
    top = column.highest or max(float(values.max()), 1.0)
    counts, edges = np.histogram(values, _BINS, (0, top))
    highest = counts.max()
    bars = []
    for count, left, right in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        if count:
            height = 100 * count / highest
            words = f"{left:,.2f} to {right:,.2f}: {count} slide{'s' if count > 1 else ''}"
            bars.append(
                f'<rect x="{30 + 250 * left / top:.1f}" y="{110 - height:.1f}" width="{250 / _BINS - 1:.1f}" '
                f'height="{height:.1f}"><title>{words}</title></rect>'
            )
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    shown = f"median {middle:,.{decimals}f}, middle half {low:,.{decimals}f} to {high:,.{decimals}f}"
    ticks = "".join(
        f'<text x="{30 + 250 * share:.0f}" y="125" text-anchor="middle">'
        f"{share * top:,.{1 if top <= 1 else 0}f}</text>"
        for share in (0, 0.5, 1)
    )
    return (
        f'<figure><svg viewBox="0 0 300 132" role="img" aria-label="{escape(name)}: {shown}">'
        f'<text x="26" y="18" text-anchor="end">{highest}</text>'
        '<text x="26" y="110" text-anchor="end">0</text>'
        f'<line x1="30" y1="110.5" x2="280" y2="110.5"/>{"".join(bars)}{ticks}</svg>'
        f"<figcaption><b>{escape(name)}</b><br>{shown}</figcaption></figure>"
    )
