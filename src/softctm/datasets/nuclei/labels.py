"""Label images and tables: `images/NAME.*`, `instances/NAME.png`, `types/NAME.csv`, and `organs.csv`.

An instance map is a PNG or TIFF of 8, 16 or 32 bits, 0 where there is no nucleus. A table has a header
`id,type` and one row per nucleus, with the type's name; without the folder `types`, nuclei have no types.
`organs.csv`, with a header `name,organ`, may be missing too.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.dataset_images import read_label_image, read_rgb
from softctm.datasets.nuclei.base import (
    UNTYPED,
    NucleiDataset,
    NucleiLabels,
    image_named,
    whole_numbers,
)
from softctm.errors import InputError
from softctm.nuclei_table import tabulate, types_named
from softctm.storage.names import repeated
from softctm.storage.text_files import read_text

_ENDINGS = (".png", ".tif", ".tiff")


class LabelImages(NucleiDataset):
    """A data set of this layout."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps = sorted(p for p in (folder / "instances").iterdir() if p.suffix.lower() in _ENDINGS)
        if not self._maps:
            raise InputError(f"{folder / 'instances'}: no label images (PNG or TIFF); add them")
        self.names = [path.stem for path in self._maps]
        if twice := repeated(self.names):
            raise InputError(f"{folder / 'instances'}: two label images are called {twice[0]}; remove one")
        organs = dict(_rows(folder / "organs.csv", ("name", "organ")))
        self.organs = [organs.get(name) for name in self.names]
        self._types = None
        self.types = UNTYPED
        if (folder / "types").is_dir():
            self._types = [_rows(folder / "types" / f"{name}.csv", ("id", "type")) for name in self.names]
            self.types = types_named(sorted({kind for rows in self._types for _, kind in rows}))

    @staticmethod
    def recognizes(folder: Path) -> bool:
        """Whether a folder has this layout."""
        return (folder / "instances").is_dir()

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        return read_rgb(image_named(self._folder / "images", self.names[index]))

    def labels(self, index: int) -> NucleiLabels:
        """The nuclei of that image."""
        path = self._maps[index]
        instances = whole_numbers(read_label_image(path), path)
        kinds = np.ones(int(instances.max()) + 1, np.int64)
        if self._types is not None:
            kinds = self._kinds(index, len(kinds))
        kinds[0] = 0
        table = tabulate(instances, kinds[instances])
        if (table.type == 0).any():
            missing = int(table.id[table.type == 0][0])
            csv_path = self._folder / "types" / f"{self.names[index]}.csv"
            raise InputError(f"{csv_path}: nucleus {missing} has no type; add its row")
        return NucleiLabels(instances, table)

    def _kinds(self, index: int, length: int) -> NDArray[np.int64]:
        """Type by nucleus."""
        assert self._types is not None
        number = {kind.name: i for i, kind in enumerate(self.types)}
        kinds = np.zeros(length, np.int64)
        for text, kind in self._types[index]:
            if not text.isdigit():
                path = self._folder / "types" / f"{self.names[index]}.csv"
                raise InputError(f"{path}: id {text!r} is not a whole number; correct it")
            if int(text) < length:
                kinds[int(text)] = number[kind]
        return kinds


def _rows(path: Path, header: tuple[str, str]) -> list[tuple[str, str]]:
    """Two named columns of a CSV file; none where `organs.csv` is missing."""
    if header[0] == "name" and not path.exists():
        return []
    text = read_text(path, remedy="add it")
    try:
        rows = list(csv.DictReader(text.splitlines()))
        return [(row[header[0]].strip(), row[header[1]].strip()) for row in rows]
    except csv.Error as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}); replace it") from None
    except (KeyError, AttributeError):
        raise InputError(f"{path}: needs the columns {','.join(header)} in every row") from None
