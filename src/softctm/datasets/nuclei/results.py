"""What `softctm nuclei` writes: a folder an image with `instances.tif` and `nuclei.csv`; without images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.nuclei.base import NucleiDataset, NucleiLabels, whole_numbers
from softctm.errors import InputError
from softctm.nuclei_table import PANNUKE_TYPES, NucleiTable, tabulate, types_named
from softctm.storage.text_files import read_text


class Results(NucleiDataset):
    """A data set of this layout, to be scored. Nuclei that are in no table stay in the map."""

    def __init__(self, folder: Path) -> None:
        self._folders = _folders(folder)
        self.names = [path.name for path in self._folders]
        self.organs: list[str | None] = [None] * len(self.names)
        self._rows = [_rows(path / "nuclei.csv") for path in self._folders]
        named = {kind for rows in self._rows for kind in rows.values()}
        # Nuclei in which no type was seen are of the background's type.
        self.types = types_named(sorted(named - {PANNUKE_TYPES[0].name}))

    @staticmethod
    def recognizes(folder: Path) -> bool:
        """Whether a folder has this layout."""
        return bool(_folders(folder))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Not part of a result."""
        raise InputError(
            f"{self._folders[index]}: a result holds no image; give the data set it is scored by"
        )

    def labels(self, index: int) -> NucleiLabels:
        """The nuclei of that image."""
        import tifffile

        path = self._folders[index] / "instances.tif"
        try:
            instances = whole_numbers(tifffile.imread(path), path)
        except InputError:
            raise
        except Exception as error:  # tifffile raises whatever a damaged file leads to
            raise InputError(f"{path}: cannot be read as a label image ({error}); write it anew") from None
        number = {kind.name: i for i, kind in enumerate(self.types)}
        kinds = np.zeros(int(instances.max()) + 1, np.int64)
        rows = self._rows[index]
        ids = np.array(sorted(rows), np.int64)
        table: NucleiTable = tabulate(instances, (instances > 0).astype(np.int64))
        if not np.isin(ids, table.id).all():
            absent = int(ids[~np.isin(ids, table.id)][0])
            raise InputError(f"{path}: nucleus {absent} of nuclei.csv is not in the map; write both anew")
        kinds[ids] = [number[rows[i]] for i in ids.tolist()]
        table = tabulate(instances, kinds[instances])
        return NucleiLabels(instances, table.where(np.isin(table.id, ids)))


def _folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/instances.tif"))


def _rows(path: Path) -> dict[int, str]:
    """Type by nucleus."""
    text = read_text(path, remedy="write it anew")
    try:
        return {int(row["id"]): row["type"] for row in csv.DictReader(text.splitlines())}
    except (csv.Error, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as a table of nuclei ({error}); write it anew") from None
