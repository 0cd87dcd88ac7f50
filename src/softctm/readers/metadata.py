"""`metadata.json`: one entry a pair, as a list in the pairs' order or as an object by stem."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softctm.errors import InputError, PairError
from softctm.readers.pixels import one_line

_MAX_BYTES = 64 << 20


class Metadata:
    """The entries of all pairs.

    Parameters
    ----------
    document : list or object
        A list of entries in the pairs' order, or `{"sample_pairs": {stem: entry}}`.
    label : str
        The file as messages call it.

    Raises
    ------
    InputError
        If the document is neither.
    """

    def __init__(self, document: Any, label: str) -> None:
        self.label = label
        self._entries: Sequence[Any] | Mapping[str, Any]
        if isinstance(document, list):
            self._entries = document
        elif isinstance(document, dict) and isinstance(document.get("sample_pairs"), dict):
            self._entries = document["sample_pairs"]
        else:
            raise InputError(
                f'{label}: must be a list of entries or an object with "sample_pairs"; correct it'
            )

    @property
    def by_stem(self) -> bool:
        """Whether entries are found by the pair's stem instead of its number."""
        return isinstance(self._entries, Mapping)

    def check_count(self, pairs: int) -> list[str]:
        """Compare the number of entries with that of pairs.

        Returns
        -------
        list of str
            A warning where the list is too short.

        Raises
        ------
        InputError
            If the list is longer than the pairs: then nothing says which entry belongs to which pair.
        """
        entries = len(self._entries)
        if self.by_stem or entries == pairs:
            return []
        if entries > pairs:
            raise InputError(
                f"{self.label}: has {entries} entries for {pairs} pairs; remove those without images"
            )
        return [
            f"{self.label}: has {entries} entries for {pairs} pairs; the last {pairs - entries} will fail"
        ]

    def entry(self, index: int, name: str) -> Mapping[str, Any]:
        """The entry of one pair.

        Raises
        ------
        PairError
            If there is none, or it is not an object.
        """
        if isinstance(self._entries, Mapping):
            entry, where = self._entries.get(name), f'"{name}" in sample_pairs'
        else:
            entry = self._entries[index] if index < len(self._entries) else None
            where = f"number {index} (counted from 0)"
        if entry is None:
            raise PairError(f"pair {name}: {self.label} has no entry {where}; add it")
        if not isinstance(entry, dict):
            raise PairError(f"pair {name}: entry {where} of {self.label} is not an object; correct it")
        return entry


def read_json(path: Path, label: str) -> Any:
    """Parse a JSON file.

    Raises
    ------
    InputError
        If it is missing, unreadable, not JSON, or absurdly large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{label}: is missing; add it beside the images") from error
    except OSError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror}); check it") from error
    if len(data) > _MAX_BYTES:
        raise InputError(f"{label}: is larger than {_MAX_BYTES >> 20} MB; that is no list of pairs")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{label}: is not valid JSON ({one_line(error)}); correct it") from error
