"""The OCELOT 2023 release on disk: which pairs there are, and their annotations.

Layout: `images/<subset>/{cell,tissue}/ID.jpg`, `annotations/<subset>/cell/ID.csv`,
`annotations/<subset>/tissue/ID.png` and `metadata.json` with `sample_pairs`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softctm.errors import InputError
from softctm.pair import PATCH_SIZE
from softctm.points import CellPoints

TISSUE_BACKGROUND, TISSUE_CANCER, TISSUE_UNKNOWN = 1, 2, 255
"""Values of the tissue annotation's pixels."""

_TISSUE_VALUES = np.array([TISSUE_BACKGROUND, TISSUE_CANCER, TISSUE_UNKNOWN], np.uint8)


@dataclass(frozen=True)
class AnnotatedPair:
    """One pair of the release: where its files are and what its metadata say."""

    id: str
    patient: str
    organ: str
    metadata: Mapping[str, Any]
    cell_image: Path
    tissue_image: Path
    cell_csv: Path
    tissue_png: Path

    def cells(self) -> CellPoints:
        """The annotated cells; score is 1 for each. A file without rows is a patch without cells."""
        text = self._read(self.cell_csv)
        try:
            table = [
                [int(float(value)) for value in line.split(",")] for line in text.splitlines() if line.strip()
            ]
            rows = np.array(table, np.int64).reshape(len(table), 3)
        except (ValueError, OverflowError):
            raise InputError(f"{self.cell_csv}: every row must be three numbers, x,y,label") from None
        if len(rows) and not (rows[:, :2].min() >= 0 and rows[:, :2].max() < PATCH_SIZE):
            raise InputError(f"{self.cell_csv}: positions must lie in 0 … {PATCH_SIZE - 1}")
        if not np.isin(rows[:, 2], (1, 2)).all():
            raise InputError(f"{self.cell_csv}: labels must be 1 (background cell) or 2 (tumor cell)")
        return CellPoints(
            rows[:, 0].astype(np.int32),
            rows[:, 1].astype(np.int32),
            rows[:, 2].astype(np.uint8),
            np.ones(len(rows), np.float32),
        )

    def tissue_labels(self) -> NDArray[np.uint8]:
        """The annotated tissue, (1024, 1024) uint8: 1 background, 2 cancer area, 255 unknown."""
        try:
            labels = np.asarray(Image.open(self.tissue_png))
        except (OSError, SyntaxError) as error:
            raise InputError(f"{self.tissue_png}: cannot be read as an image ({error})") from None
        if labels.shape != (PATCH_SIZE, PATCH_SIZE) or labels.dtype != np.uint8:
            raise InputError(f"{self.tissue_png}: must be an 8-bit gray image of {PATCH_SIZE} × {PATCH_SIZE}")
        # Counting all 256 values is many times faster than looking for each pixel's in a list.
        found = set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist())
        unknown = sorted(found - {TISSUE_BACKGROUND, TISSUE_CANCER, TISSUE_UNKNOWN})
        if unknown:
            raise InputError(f"{self.tissue_png}: labels must be 1, 2 or 255, found {unknown}")
        return labels

    @staticmethod
    def _read(path: Path) -> str:
        try:
            return path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None


def load_release(folder: Path, subset: str = "train") -> list[AnnotatedPair]:
    """List the pairs of one subset, sorted by ID; their files are opened later.

    The patient is the slide name's first twelve characters, as TCGA's barcodes have it.

    Raises
    ------
    InputError
        If the folder is not an OCELOT release or has no pair of that subset.
    """
    path = Path(folder) / "metadata.json"
    try:
        sample_pairs = json.loads(path.read_text())["sample_pairs"]
        pairs = [
            AnnotatedPair(
                id=pair_id,
                patient=str(entry["slide_name"])[:12],
                organ=str(entry["organ"]),
                metadata=entry,
                cell_image=folder / "images" / subset / "cell" / f"{pair_id}.jpg",
                tissue_image=folder / "images" / subset / "tissue" / f"{pair_id}.jpg",
                cell_csv=folder / "annotations" / subset / "cell" / f"{pair_id}.csv",
                tissue_png=folder / "annotations" / subset / "tissue" / f"{pair_id}.png",
            )
            for pair_id, entry in sorted(sample_pairs.items())
            if entry.get("subset", subset) == subset
        ]
    except OSError as error:
        raise InputError(f"{path}: cannot be read; is {folder} an OCELOT release? ({error})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not an OCELOT release's metadata ({type(error).__name__}: {error})"
        ) from None
    if not pairs:
        raise InputError(f"{path}: no pair of the subset '{subset}'")
    return pairs


def tissue_labels_of(probability: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The likeliest class of each pixel.

    Parameters
    ----------
    probability : (2 or 3, H, W) float
        Background, cancer area and, with some networks, unknown.

    Returns
    -------
    (H, W) uint8
        1, 2 or 255; of equal ones the first.
    """
    labels: NDArray[np.uint8] = _TISSUE_VALUES[probability.argmax(axis=0)]
    return labels
