"""What is done of a slide, on disk: one file a stretch, whole or absent, under the key of what made it."""

from __future__ import annotations

import io
import json
import shutil
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.errors import SlideError
from softctm.jobs.slide_plan import STRETCH, Stretch
from softctm.slides.lattice import Box, TissueLattice
from softctm.storage.files import (
    prepare_folder,
    remove_left_overs,
    write_bytes_atomically,
    write_json_atomically,
)

FOLDER = ".state"
_KEY = "key.json"
_SQUARES = 4
"""Squares of the tissue map that are kept for the next windows: 8 MB each with two classes."""

CELL_RECORD = np.dtype(
    [
        ("x", "<i4"),
        ("y", "<i4"),
        ("label", "u1"),
        ("tissue", "u1"),
        ("score", "<f4"),
        ("other", "<f4"),
        ("height", "<f4"),
    ]
)
"""A cell as it is stored: place on the slide (pixels of 0.2 µm), class, probability of cancer area there
(255 = 1), probabilities of its class and of the other one, blurred foreground."""

BACKGROUND = 255
"""Of the tissue map's first class where nobody looked: outside of the slide, and where it has no tissue."""


class SlideState:
    """The state of one slide's computation.

    Parameters
    ----------
    folder : Path
        The slide's results; the state lies in a folder `.state` in it.
    key : mapping
        Everything that the computation depends on: slide, model, options.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder, self.key = folder, dict(key)
        self._files = folder / FOLDER
        self._squares: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()

    def record(self) -> dict[str, Any] | None:
        """The `slide.json` of an earlier run that finished under this key; None without one."""
        document = _read_json(self.folder / "slide.json")
        is_ours = document.get("key") == self.key and document.get("status") == "complete"
        return document if is_ours else None

    def begin(self, overwrite: bool = False) -> None:
        """Take up the state that is there, or start one.

        Raises
        ------
        SlideError
            If the folder holds the results of another slide, model or option, and `overwrite` is not given.
        OutputError
            If it cannot be written to.
        """
        stored = self._stored_key()
        if overwrite and self.folder.is_dir():
            shutil.rmtree(self._files, ignore_errors=True)
            for file in (*self.folder.glob("cells.*"), self.folder / "slide.json"):
                file.unlink(missing_ok=True)
        elif stored is not None and stored != self.key:
            raise SlideError(
                f"{self.folder}: holds results of another {_difference(stored, self.key)}; take another "
                "output folder, or --overwrite"
            )
        prepare_folder(self._files)
        for folder in (self.folder, self._files):
            remove_left_overs(folder)
        if not (self._files / _KEY).is_file():
            write_json_atomically(self._files / _KEY, self.key, indent=1)

    def is_done(self, stretch: Stretch) -> bool:
        """Whether a stretch is stored."""
        return self._file(stretch.kind, stretch.column, stretch.row).is_file()

    def write_tissue(self, stretch: Stretch, tissue_map: NDArray[np.uint8]) -> None:
        """Store the part of the tissue map that a stretch's lattice square owns, (C, h, w) uint8."""
        write_bytes_atomically(
            self._file(stretch.kind, stretch.column, stretch.row), zlib.compress(_npy(tissue_map), level=1)
        )

    def write_cells(self, stretch: Stretch, cells: NDArray[np.void]) -> None:
        """Store a stretch's cells, (N,) `CELL_RECORD`, in row-major order of fields, then as found."""
        write_bytes_atomically(self._file(stretch.kind, stretch.column, stretch.row), _npy(cells))

    def cells(self, stretch: Stretch) -> NDArray[np.void]:
        """A stretch's cells, (N,) `CELL_RECORD`."""
        found: NDArray[np.void] = np.load(self._file(stretch.kind, stretch.column, stretch.row))
        return found

    def tissue_square(self, column: int, row: int) -> NDArray[np.uint8] | None:
        """What `write_tissue` stored of a square of the lattice, None where nobody looked."""
        place = (column, row)
        if place not in self._squares:
            file = self._file("tissue", *place)
            if not file.is_file():
                return None
            self._squares[place] = np.load(io.BytesIO(zlib.decompress(file.read_bytes())))
            if len(self._squares) > _SQUARES:
                self._squares.popitem(last=False)
        self._squares.move_to_end(place)
        return self._squares[place]

    def tissue_map(self, box: Box, lattice: TissueLattice) -> NDArray[np.uint8] | None:
        """A window of the tissue map, (C, h, w) uint8; None where nobody looked at any of it.

        Background where nobody looked, and outside of the slide.
        """
        window, side = None, STRETCH["tissue"]
        for column, row in sorted({(c // side, r // side) for c, r in lattice.owners(box)}):
            square = self.tissue_square(column, row)
            if square is not None:
                window = empty_map(len(square), box.height, box.width) if window is None else window
                paste(square, square_box(lattice, column, row), window, box)
        return window

    def drop_tissue(self) -> None:
        """Forget the tissue map, once it is written as a result."""
        for file in self._files.glob("tissue-*"):
            file.unlink(missing_ok=True)

    def write_array(self, name: str, array: NDArray[Any]) -> None:
        """Store an array under a name."""
        write_bytes_atomically(self._files / f"{name}.npy", _npy(array))

    def array(self, name: str) -> NDArray[Any] | None:
        """A stored array, None where there is none."""
        file = self._files / f"{name}.npy"
        return np.load(file) if file.is_file() else None

    def _file(self, kind: str, column: int, row: int) -> Path:
        return self._files / f"{kind}-{row:04}-{column:04}.npy{'.z' if kind == 'tissue' else ''}"

    def _stored_key(self) -> dict[str, Any] | None:
        """The key of what the folder holds; None where it holds nothing of ours."""
        stored = _read_json(self._files / _KEY) or _read_json(self.folder / "slide.json").get("key")
        return stored or None


def empty_map(classes: int, height: int, width: int) -> NDArray[np.uint8]:
    """A tissue map of background only, (C, h, w) uint8."""
    tissue_map = np.zeros((classes, height, width), np.uint8)
    tissue_map[0] = BACKGROUND
    return tissue_map


def square_box(lattice: TissueLattice, column: int, row: int) -> Box:
    """The part of the tissue map that a stretch's square of the lattice owns."""
    side = STRETCH["tissue"]
    first = lattice.kept(column * side, row * side)
    last = lattice.kept(
        min((column + 1) * side, lattice.columns) - 1, min((row + 1) * side, lattice.rows) - 1
    )
    return Box(first.x0, first.y0, last.x1, last.y1)


def paste(source: NDArray[np.uint8], at: Box, target: NDArray[np.uint8], window: Box) -> None:
    """Copy what (C, h, w) `source`, lying at `at`, has in common with `target`, lying at `window`."""
    x0, x1 = max(at.x0, window.x0), min(at.x1, window.x1)
    y0, y1 = max(at.y0, window.y0), min(at.y1, window.y1)
    if x0 < x1 and y0 < y1:
        target[:, y0 - window.y0 : y1 - window.y0, x0 - window.x0 : x1 - window.x0] = source[
            :, y0 - at.y0 : y1 - at.y0, x0 - at.x0 : x1 - at.x0
        ]


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _difference(stored: Mapping[str, Any], key: Mapping[str, Any]) -> str:
    """What two keys differ in, in a user's words."""
    names = [name for name in key if stored.get(name) != key[name]]
    return " and another ".join(name.replace("_", " ") for name in names) or "kind"
