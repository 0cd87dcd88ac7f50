"""What the files of nuclei share: filled batch by batch, there under their name when they are whole."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from softctm.nuclei_table import NucleusType
from softctm.postprocessing.measured_nuclei import MeasuredNuclei
from softctm.storage.files import AtomicFile, output_errors


class NucleiWriter(ABC):
    """A file that a `with` block fills.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    types : sequence of NucleusType
        By number, background first.

    Raises
    ------
    OutputError
        On opening, adding or closing, if the file cannot be written.
    """

    def __init__(self, path: Path, types: Sequence[NucleusType]) -> None:
        self._path, self._types, self._atomic = path, types, AtomicFile(path)

    def __enter__(self) -> Self:
        self._file: IO[bytes] = self._atomic.__enter__()
        try:
            with output_errors(self._path):
                self._begin()
        except BaseException as error:
            self._atomic.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with output_errors(self._path):
                    self._finish()
        except BaseException as error:
            self._give_up(type(error), error, error.__traceback__)
            raise
        if kind is None:
            self._atomic.__exit__(None, None, None)
        else:
            self._give_up(kind, value, trace)

    def _give_up(
        self, kind: type[BaseException], value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what writes into the file, then the file, which does not appear."""
        with contextlib.suppress(Exception):
            self._close()
        self._atomic.__exit__(kind, value, trace)

    def add(
        self,
        nuclei: MeasuredNuclei,
        *,
        origin: tuple[float, float] = (0.0, 0.0),
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """Write a batch.

        Parameters
        ----------
        nuclei : MeasuredNuclei
            Ids are written as they are: they should be the file's own.
        origin : (float, float)
            Where the map's top left corner lies, x and y, in the pixels that the user sees: level-0 pixels of
            a slide.
        scale : (float, float)
            Such pixels per pixel of the map, along x and y.
        """
        with output_errors(self._path):
            self._add(nuclei, origin, scale)

    @abstractmethod
    def _begin(self) -> None:
        """Write what comes before all nuclei."""

    @abstractmethod
    def _add(self, nuclei: MeasuredNuclei, origin: tuple[float, float], scale: tuple[float, float]) -> None:
        """See `add`."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what comes after all nuclei, and `_close`."""

    @abstractmethod
    def _close(self) -> None:
        """Close what writes into the file, if there is something."""
