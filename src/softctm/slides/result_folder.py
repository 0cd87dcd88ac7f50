"""The folder of a slide's results, as far as it tells which slide they are of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

RECORD_FILE, STATE_FOLDER, KEY_FILE = "slide.json", ".state", "key.json"
"""What says what a folder's results are made of: once they are finished, and (in the state) before."""


def place_of(slide: Path) -> Path:
    """A slide's absolute path, the same by whatever way its folder is named.

    Links of the folder are followed; one that is the slide itself keeps its name.
    """
    slide = slide.absolute()
    if slide.name in ("", ".."):  # a folder is a slide, too
        return Path(os.path.realpath(slide))
    return Path(os.path.realpath(slide.parent)) / slide.name


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def stored_key(folder: Path) -> dict[str, Any] | None:
    """Everything that the results in a folder depend on; None where it holds none."""
    key = read_record(folder / STATE_FOLDER / KEY_FILE) or read_record(folder / RECORD_FILE).get("key")
    return key if isinstance(key, dict) and key else None


def holds_results_of(folder: Path, slide: Path) -> bool:
    """Whether a folder's results, finished or not, are of that file."""
    identity = (stored_key(folder) or {}).get("slide")
    return isinstance(identity, dict) and identity.get("path") == str(place_of(slide))
