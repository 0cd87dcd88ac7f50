"""Small releases with images, and a page taken apart, for the report's tests."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from evaluation_cases import write_release
from PIL import Image

from softctm.points import CellPoints


def write_release_with_images(folder: Path, pairs: Sequence[CellPoints], organs: Sequence[str] = ()) -> Path:
    """`write_release` with plain colored patches."""
    write_release(folder, pairs, organs)
    for kind in ("cell", "tissue"):
        (folder / "images" / "train" / kind).mkdir(parents=True)
        for i in range(len(pairs)):
            image = np.full((1024, 1024, 3), (230 - 20 * i, 180, 200 if kind == "cell" else 120), np.uint8)
            Image.fromarray(image).save(folder / "images" / "train" / kind / f"{i + 1:03d}.jpg")
    return folder


class PageParts(HTMLParser):
    """A page's elements, its embedded data, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(page)
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
        self.data: dict[str, Any] | None = json.loads(found[1]) if found else None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text that is shown, white space collapsed."""
        return " ".join(" ".join(self.texts).split())


def visible_counts(entry: dict[str, Any], stop: int) -> dict[tuple[str, int], int]:
    """How many marks of each outcome and class are to be seen at a stop, by the data's own rule."""
    counts: dict[tuple[str, int], int] = {}
    for _, _, label, until, _, is_tp in entry["cells"]:
        if stop <= until:
            key = ("tp" if is_tp else "fp", label)
            counts[key] = counts.get(key, 0) + 1
    for _, _, label, found_until in entry["truth"]:
        if stop > found_until:
            counts["fn", label] = counts.get(("fn", label), 0) + 1
    return counts
