"""Grand Challenge's `inputs.json`: which socket is which, and where its value lies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softctm.errors import InputError
from softctm.readers.metadata import Metadata
from softctm.storage.text_files import read_json

WORDS = ("cell", "tissue", "metadata")
"""What the slugs of the three sockets must contain."""

_RESULT_FILE = "cell_classification.json"


@dataclass(frozen=True)
class _Socket:
    """One value of `inputs.json`.

    Attributes
    ----------
    words : tuple of str
        Those of `WORDS` that it may stand for.
    path, label : Path and str
        Where its value should lie, and how messages call that.
    value : object
        What `inputs.json` itself holds.
    """

    slug: str
    words: tuple[str, ...]
    path: Path
    label: str
    value: Any


def find_sockets(folder: Path) -> tuple[dict[str, tuple[Path, str]], Metadata, list[str]]:
    """Find the cell, tissue and metadata sockets of `folder/inputs.json`.

    A value's place is its socket's `relative_path`, else `images/<slug>/`. Metadata that the platform put
    into `inputs.json` itself (`value`) are taken from there where no file lies at their place.

    Returns
    -------
    places : dict
        `"cell"` and `"tissue"`, each the path of a folder or file and its name in messages.
    metadata : Metadata
    warnings : list of str
        One that names the sockets that are not used, where there are any.

    Raises
    ------
    InputError
        If the file has another form, a socket is missing or ambiguous, or a place leaves the folder.
    """
    values = read_json(folder / "inputs.json", "inputs.json")
    if not isinstance(values, list):
        raise InputError("inputs.json: must be a list of values, each with its socket; correct it")
    sockets = [_socket(folder, number, value) for number, value in enumerate(values)]
    chosen = {word: _choose(word, sockets) for word in WORDS}
    if chosen["cell"] is chosen["tissue"]:
        raise InputError(
            f"inputs.json: the socket {chosen['cell'].slug} could be both the cell and the tissue one; the "
            "algorithm's interface needs a socket for each"
        )
    for word in ("cell", "tissue"):
        if not chosen[word].path.exists():
            raise InputError(
                f"{chosen[word].label}: missing, although inputs.json names it for {chosen[word].slug}; put "
                f"the {word} patches there"
            )
    unused = [socket.slug for socket in sockets if socket not in chosen.values()]
    warnings = [f"inputs.json: passed over the sockets {', '.join(unused)}"] if unused else []
    places = {word: (chosen[word].path, chosen[word].label) for word in ("cell", "tissue")}
    found = chosen["metadata"]
    if not found.path.exists() and found.value is not None:
        return places, Metadata(found.value, "inputs.json's metadata value"), warnings
    return places, _metadata_at(found.path, found.label), warnings


def _socket(folder: Path, number: int, value: Any) -> _Socket:
    """One element of `inputs.json`, with the words that it may stand for."""
    socket = value.get("socket", value.get("interface")) if isinstance(value, dict) else None
    slug = socket.get("slug") if isinstance(socket, dict) else None
    if not isinstance(socket, dict) or not isinstance(slug, str) or not slug:
        raise InputError(f"inputs.json: value {number} has no socket with a slug; correct it")
    words = [word for word in WORDS if word in slug.lower()]
    path, label = _place(folder, slug, socket)
    # Metadata are no image, and patches nothing else; older files do not say which a socket holds.
    if isinstance(kind := socket.get("super_kind"), str) and kind:
        words = [word for word in words if (word != "metadata") == (kind.lower() == "image")]
    elif "metadata" in words:
        words = ["metadata"]
    if path.name == _RESULT_FILE:  # the algorithm's own output
        words = []
    return _Socket(slug, tuple(words), path, label, value.get("value"))


def _choose(word: str, sockets: Sequence[_Socket]) -> _Socket:
    """The socket that a word stands for: of several the one that stands for nothing else and has a value."""
    found = [socket for socket in sockets if word in socket.words]
    if not found:
        raise InputError(
            f"inputs.json: no socket's slug contains {word} (it has "
            f"{', '.join(socket.slug for socket in sockets) or 'none'}); name the three sockets after what "
            f"they hold: {', '.join(WORDS)}"
        )
    found = [socket for socket in found if len(socket.words) == 1] or found
    found = [socket for socket in found if socket.path.exists() or socket.value is not None] or found
    if len(found) > 1:
        raise InputError(
            f"inputs.json: several sockets could be the {word} one "
            f"({', '.join(socket.slug for socket in found)}), and there are values for each; the algorithm's "
            "interface must have only one of them"
        )
    return found[0]


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
        try:
            files = sorted(p for p in path.iterdir() if p.suffix.lower() == ".json" and p.name[0] != ".")
        except OSError as error:
            raise InputError(f"{label}: cannot be looked into ({error.strerror}); check it") from error
        if len(files) != 1:
            raise InputError(
                f"{label}: holds {len(files)} JSON files instead of one; leave the pairs' metadata there"
            )
        path, label = files[0], f"{label}/{files[0].name}"
    return Metadata(read_json(path, label, f"add it as {path.absolute()}"), label)
