"""The OCELOT 2023 release on disk: which pairs there are, and their annotations.

Layout: `images/<subset>/{cell,tissue}/ID.jpg` (or another suffix that `predict` reads),
`annotations/<subset>/cell/ID.csv`, `annotations/<subset>/tissue/ID.png` and `metadata.json` with
`sample_pairs`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softctm.datasets.patients import TCGA_PATIENTS, PatientKey
from softctm.errors import InputError
from softctm.geometry import tissue_window
from softctm.pair import PATCH_SIZE, CellTissuePair
from softctm.points import CellPoints
from softctm.readers.images import list_images, read_patch

TISSUE_BACKGROUND, TISSUE_CANCER, TISSUE_UNKNOWN = 1, 2, 255
"""Values of the tissue annotation's pixels."""

_TISSUE_VALUES = np.array([TISSUE_BACKGROUND, TISSUE_CANCER, TISSUE_UNKNOWN], np.uint8)


@dataclass(frozen=True)
class AnnotatedPair:
    """One pair of the release: where its files are and what its metadata say.

    Attributes
    ----------
    id : str
    patient : str
        "" where the metadata do not tell.
    organ : str
    metadata : mapping
        The pair's entry in `metadata.json`.
    cell_image, tissue_image, cell_csv, tissue_png : Path
        Opened when they are read.
    """

    id: str
    patient: str
    organ: str
    metadata: Mapping[str, Any]
    cell_image: Path
    tissue_image: Path
    cell_csv: Path
    tissue_png: Path

    def cell_patch(self) -> NDArray[np.uint8]:
        """The cell patch, (1024, 1024, 3) uint8 RGB, as prediction reads it; InputError otherwise."""
        return read_patch(self.cell_image, str(self.cell_image))

    def tissue_patch(self) -> NDArray[np.uint8]:
        """The tissue patch; as `cell_patch`."""
        return read_patch(self.tissue_image, str(self.tissue_image))

    def read(self) -> CellTissuePair:
        """Both patches and their geometry, as the detector takes them.

        Raises
        ------
        InputError
            If an image or the metadata entry cannot be used.
        """
        window = tissue_window(self.metadata, self.id)
        return CellTissuePair(self.cell_patch(), self.tissue_patch(), window, self.id)

    def cells(self) -> CellPoints:
        """The annotated cells; score is 1 for each. A file without rows is a patch without cells.

        Rows are x,y,label; a first row with these names and empty lines are passed over.

        Raises
        ------
        InputError
            If the file cannot be read; if a row is wrong, the message names its line and quotes it.
        """
        table: list[tuple[int, int, int]] = []
        for number, line in enumerate(self._read(self.cell_csv).splitlines(), 1):
            if not line.strip() or (not table and _is_header(line)):
                continue
            table.append(self._row(line, number))
        rows = np.array(table, np.int64).reshape(len(table), 3)
        return CellPoints(
            rows[:, 0].astype(np.int32),
            rows[:, 1].astype(np.int32),
            rows[:, 2].astype(np.uint8),
            np.ones(len(rows), np.float32),
        )

    def _row(self, line: str, number: int) -> tuple[int, int, int]:
        where = f"{self.cell_csv}: line {number} ({line.strip()[:60]!r})"
        try:
            x, y, label = (int(float(value)) for value in line.split(","))
        except (ValueError, OverflowError):
            raise InputError(f"{where}: every row must be three numbers, x,y,label") from None
        if not (0 <= x < PATCH_SIZE and 0 <= y < PATCH_SIZE):
            raise InputError(f"{where}: positions must lie in 0 … {PATCH_SIZE - 1}")
        if label not in (1, 2):
            raise InputError(f"{where}: labels must be 1 (background cell) or 2 (tumor cell)")
        return x, y, label

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
            return path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None


def load_release(
    folder: Path, subset: str = "train", patient_key: PatientKey = TCGA_PATIENTS
) -> list[AnnotatedPair]:
    """List the pairs of one subset, sorted by ID; their files are opened later.

    Parameters
    ----------
    folder : Path
    subset : str
    patient_key : PatientKey
        How to tell the patient; by default the first twelve characters of the slide's name.

    Raises
    ------
    InputError
        If the folder is not an OCELOT release, has no pair of that subset, or two images of one pair.
    """
    folder = Path(folder)
    path = folder / "metadata.json"
    images = {kind: _images(folder / "images" / subset / kind) for kind in ("cell", "tissue")}
    try:
        sample_pairs = json.loads(path.read_text(encoding="utf-8-sig"))["sample_pairs"]
        pairs = [
            AnnotatedPair(
                id=pair_id,
                patient=patient_key(entry),
                organ=str(entry["organ"]),
                metadata=entry,
                cell_image=images["cell"](pair_id),
                tissue_image=images["tissue"](pair_id),
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


def _images(folder: Path) -> Callable[[str], Path]:
    """Stem → its image; where there is none, the name that the release would give it."""
    found = list_images(folder, str(folder))[0] if folder.is_dir() else {}

    def image(stem: str) -> Path:
        paths = found.get(stem, [folder / f"{stem}.jpg"])
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise InputError(f"{folder}: {len(paths)} images share the stem {stem} ({names}); keep one")
        return paths[0]

    return image


def _is_header(line: str) -> bool:
    return [name.strip().strip('"').lower() for name in line.split(",")] == ["x", "y", "label"]


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
