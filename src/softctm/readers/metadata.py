"""`metadata.json`: one entry a pair, as a list in the pairs' order or as an object by stem."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from softctm.errors import InputError, PairError
from softctm.progress import counted
from softctm.storage.names import natural_order, repeated


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
        If the document is neither, or two names are the same but for how accents are stored.
    """

    def __init__(self, document: Any, label: str) -> None:
        self.label = label
        self._entries: Sequence[Any] | Mapping[str, Any]
        if isinstance(document, list):
            self._entries = document
        elif isinstance(document, dict) and isinstance(document.get("sample_pairs"), dict):
            # In the composed form, as the images' stems are: é may be stored as one character or as two.
            names = [unicodedata.normalize("NFC", name) for name in document["sample_pairs"]]
            self._entries = dict(zip(names, document["sample_pairs"].values(), strict=True))
            if twice := repeated(names):
                raise InputError(
                    f'{label}: has two entries "{twice[0]}", alike but for how accents are stored; keep one'
                )
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
        has = f"{self.label}: has {counted(entries, 'entry', 'entries')} for {counted(pairs, 'pair')}"
        if entries > pairs:
            raise InputError(f"{has}; remove those without images")
        return [f"{has}; the last {pairs - entries} will fail"]

    def check_order(self, stems: Sequence[str]) -> list[str]:
        """Compare the plain order of stems, in which a list's entries are matched, with their numeric order.

        Returns
        -------
        list of str
            Where the two differ, a warning that shows the first pairs as matched.
        """
        plain = sorted(stems)
        if self.by_stem or plain == sorted(stems, key=natural_order):
            return []
        matched = ", ".join(f"{index} → {stem}" for index, stem in enumerate(plain[:4]))
        return [
            f"{self.label}: is a list, so entry i belongs to the i-th image in plain order of the names "
            f"({matched}, …), which is not the numeric order; if the list is in numeric order, make it "
            f'an object by name, {{"sample_pairs": {{"{plain[0]}": …}}}}, or give all numbers as many digits'
        ]

    def without_images(self, stems: Sequence[str], subset: str) -> list[str]:
        """Entries of a release's subset that have no image of either kind.

        Returns
        -------
        list of str
            A warning that names the first, where there are any.
        """
        if not isinstance(self._entries, Mapping):
            return []
        have = set(stems)
        lacking = [
            name
            for name, entry in sorted(self._entries.items())
            if name not in have and isinstance(entry, dict) and entry.get("subset", subset) == subset
        ]
        if not lacking:
            return []
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        return [
            f"{self.label}: lists pairs of '{subset}' without images ({', '.join(lacking[:5])}{more}); they "
            "are left out and not counted"
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
