"""The OCELOT 2023 release on disk: which pairs there are, and their annotations.

Layout: `images/<subset>/{cell,tissue}/ID.jpg` (or another suffix that `predict` reads),
`annotations/<subset>/cell/ID.csv`, `annotations/<subset>/tissue/ID.png` and `metadata.json` with
`sample_pairs`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.dataset_images import read_label_image
from softctm.datasets.patients import TCGA_PATIENTS, PatientKey
from softctm.errors import InputError
from softctm.pair import PATCH_SIZE, CellTissuePair
from softctm.points import CellPoints
from softctm.readers.geometry import tissue_window
from softctm.readers.images import list_images, read_patch
from softctm.readers.input_layouts import check_subset
from softctm.storage.text_files import read_csv_numbers, read_json

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
        """The annotated cells; score is 1 for each. A file without rows is a patch without cells."""
        table = read_csv_numbers(self.cell_csv, ("x", "y", "label"))
        for line, (x, y, label) in table:
            where = f'{self.cell_csv}: line {line}, "{x:g},{y:g},{label:g}"'
            if not (0 <= x < PATCH_SIZE and 0 <= y < PATCH_SIZE):
                raise InputError(f"{where}: positions must lie in 0 … {PATCH_SIZE - 1}")
            if label not in (1, 2):
                raise InputError(f"{where}: labels must be 1 (background cell) or 2 (tumor cell)")
        rows = np.array([values for _, values in table], np.float64).reshape(len(table), 3)
        return CellPoints(
            rows[:, 0].astype(np.int32),
            rows[:, 1].astype(np.int32),
            rows[:, 2].astype(np.uint8),
            np.ones(len(rows), np.float32),
        )

    def tissue_labels(self) -> NDArray[np.uint8]:
        """The annotated tissue, (1024, 1024) uint8: 1 background, 2 cancer area, 255 unknown."""
        labels = read_label_image(self.tissue_png)
        if labels.shape != (PATCH_SIZE, PATCH_SIZE) or labels.dtype != np.uint8:
            raise InputError(f"{self.tissue_png}: must be an 8-bit gray image of {PATCH_SIZE} × {PATCH_SIZE}")
        # Counting all 256 values is many times faster than looking for each pixel's in a list.
        found = set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist())
        unknown = sorted(found - {TISSUE_BACKGROUND, TISSUE_CANCER, TISSUE_UNKNOWN})
        if unknown:
            raise InputError(f"{self.tissue_png}: labels must be 1, 2 or 255, found {unknown}")
        return labels


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
        If the folder is not an OCELOT release, or has two images of one pair.
    UsageError
        If it has no pair of that subset.
    """
    folder = Path(folder)
    path = folder / "metadata.json"
    images = {kind: _images(folder / "images" / subset / kind) for kind in ("cell", "tissue")}
    try:
        sample_pairs = read_json(path, remedy=f"is {folder} an OCELOT release?")["sample_pairs"]
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
        present = sorted({str(entry.get("subset", subset)) for entry in sample_pairs.values()})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not an OCELOT release's metadata ({type(error).__name__}: {error})"
        ) from None
    check_subset(folder, subset, present)
    return pairs


def _images(folder: Path) -> Callable[[str], Path]:
    """Stem → its image; where there is none, the name that the release would give it."""
    found = list_images(folder, str(folder))[0] if folder.is_dir() else {}

    def image(stem: str) -> Path:
        paths = found.get(unicodedata.normalize("NFC", stem), [folder / f"{stem}.jpg"])
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise InputError(f"{folder}: {len(paths)} images share the stem {stem} ({names}); keep one")
        return paths[0]

    return image


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
