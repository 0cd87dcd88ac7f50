"""Grand Challenge's `inputs.json`: which socket is which, and where its value lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from softctm.errors import InputError
from softctm.readers.metadata import Metadata, read_json

WORDS = ("cell", "tissue", "metadata")
"""Each must occur in the slug of exactly one socket."""


def find_sockets(folder: Path) -> tuple[dict[str, tuple[Path, str]], Metadata]:
    """Find the cell, tissue and metadata sockets of `folder/inputs.json`.

    A value's place is its socket's `relative_path`, else `images/<slug>/`. Metadata that the platform put
    into `inputs.json` itself (`value`) are taken from there where no file lies at their place.

    Returns
    -------
    places : dict
        `"cell"` and `"tissue"`, each the path of a folder or file and its name in messages.
    metadata : Metadata

    Raises
    ------
    InputError
        If the file has another form, a socket is missing or ambiguous, or a place leaves the folder.
    """
    values = read_json(folder / "inputs.json", "inputs.json")
    if not isinstance(values, list):
        raise InputError("inputs.json: must be a list of values, each with its socket; correct it")
    found: dict[str, list[tuple[str, dict[str, Any], Any]]] = {word: [] for word in WORDS}
    slugs = []
    for number, value in enumerate(values):
        socket = value.get("socket", value.get("interface")) if isinstance(value, dict) else None
        slug = socket.get("slug") if isinstance(socket, dict) else None
        if not isinstance(socket, dict) or not isinstance(slug, str) or not slug:
            raise InputError(f"inputs.json: value {number} has no socket with a slug; correct it")
        slugs.append(slug)
        words = [word for word in WORDS if word in slug.lower()]
        if len(words) > 1:
            raise InputError(
                f"inputs.json: the socket {slug} is ambiguous, its slug contains {' and '.join(words)}; "
                "rename it"
            )
        if words:
            found[words[0]].append((slug, socket, value.get("value")))
    for word, matches in found.items():
        if not matches:
            raise InputError(
                f"inputs.json: no socket's slug contains {word} (it has {', '.join(slugs) or 'none'}); "
                "name the three sockets after what they hold"
            )
        if len(matches) > 1:
            raise InputError(
                f"inputs.json: several sockets could be the {word} one "
                f"({', '.join(slug for slug, _, _ in matches)}); rename all but one"
            )
    places = {word: _place(folder, *found[word][0][:2]) for word in WORDS}
    for word in ("cell", "tissue"):
        path, label = places[word]
        if not path.exists():
            raise InputError(f"{label}: missing, although inputs.json names it for {found[word][0][0]}")
    path, label = places.pop("metadata")
    inline = found["metadata"][0][2]
    if not path.exists() and inline is not None:
        return places, Metadata(inline, "inputs.json's metadata value")
    return places, _metadata_at(path, label)


def _place(folder: Path, slug: str, socket: dict[str, Any]) -> tuple[Path, str]:
    """Path of a socket's value, inside `folder`."""
    relative = socket.get("relative_path")
    if relative is None or relative == "":
        relative = f"images/{slug}"
    if not isinstance(relative, str) or "\0" in relative:
        raise InputError(f"inputs.json: the relative_path of {slug} is no path; correct it")
    clean = os.path.normpath(relative)
    if os.path.isabs(clean) or clean.split(os.sep)[0] == ".." or clean == ".":
        raise InputError(f"inputs.json: the relative_path of {slug} leaves the input folder; correct it")
    return folder / clean, clean


def _metadata_at(path: Path, label: str) -> Metadata:
    """Metadata from a JSON file, or from the only JSON file of a folder."""
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() == ".json" and p.name[0] != ".")
        if len(files) != 1:
            raise InputError(f"{label}: holds {len(files)} JSON files instead of one")
        path, label = files[0], f"{label}/{files[0].name}"
    return Metadata(read_json(path, label), label)
