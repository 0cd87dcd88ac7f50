"""Pairs of either layout behind one interface, read one at a time."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softctm.errors import InputError, PairError
from softctm.pair import CellTissuePair
from softctm.readers.geometry import resolution_warnings, tissue_window
from softctm.readers.images import read_patch
from softctm.readers.metadata import Metadata


class Stream(Protocol):
    """The cell patches, or the tissue patches, of all pairs."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Patch of pair `index` as (1024, 1024, 3) uint8; `InputError` where it cannot be had."""


@dataclass(frozen=True)
class PatchFiles:
    """One file a pair, found by its stem; a missing or second file is an error only when the pair is read."""

    kind: str
    label: str
    stems: Sequence[str]
    files: Mapping[str, Sequence[Path]]

    def read(self, index: int) -> NDArray[np.uint8]:
        """See `Stream`."""
        stem = self.stems[index]
        paths = self.files.get(stem, ())
        if not paths:
            raise InputError(f"no {self.kind} image {stem}.* in {self.label}; add it")
        if len(paths) > 1:
            alike = len({unicodedata.normalize("NFC", path.name) for path in paths}) < len(paths)
            raise InputError(
                f"{len(paths)} {self.kind} images share the stem in {self.label} "
                f"({', '.join(path.name for path in paths)}"
                f"{', which differ only in how accents are stored' if alike else ''}); keep one"
            )
        return read_patch(paths[0], f"{self.label}/{paths[0].name}")


class PairSource:
    """All pairs of one input.

    Parameters
    ----------
    layout : str
        What was found, in words.
    names : sequence of str
        One a pair, in the order in which they are numbered.
    cell, tissue : Stream
        Where the patches come from.
    metadata : Metadata
        Where the geometry comes from.

    Attributes
    ----------
    warnings : list of str
        What is odd about the input but does not stop it; grows while pairs are read.
    """

    def __init__(
        self,
        layout: str,
        names: Sequence[str],
        cell: Stream,
        tissue: Stream,
        metadata: Metadata,
        warnings: Sequence[str] = (),
    ) -> None:
        self.layout = layout
        self.names = list(names)
        self.warnings = [*warnings, *metadata.check_count(len(self.names))]
        self._streams = {"cell": cell, "tissue": tissue}
        self._metadata = metadata

    def __len__(self) -> int:
        return len(self.names)

    def metadata(self, index: int) -> Mapping[str, Any] | None:
        """The metadata entry of pair `index`; None where there is no usable one."""
        try:
            return self._metadata.entry(index, self.names[index])
        except PairError:
            return None

    def read(self, index: int) -> CellTissuePair:
        """Read pair `index`.

        Raises
        ------
        PairError
            If its metadata or one of its images cannot be used; the message names the pair.
        """
        name = self.names[index]
        entry = self._metadata.entry(index, name)
        window = tissue_window(entry, name)
        patches = {}
        for kind, stream in self._streams.items():
            try:
                patches[kind] = stream.read(index)
            except InputError as error:
                raise PairError(f"pair {name}: {error}") from error
        self.warnings += resolution_warnings(entry, name)
        return CellTissuePair(patches["cell"], patches["tissue"], window, name)
