"""Single images with cell or tissue labels: what datasets other than OCELOT give to pretraining.

None of these images is a pair: there is tissue or there are cells, at a scale of the dataset's own.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.dataset_images import IMAGE_ENDINGS, read_label_image
from softctm.errors import InputError

UNKNOWN_CLASS = 0
"""Label of a cell that is annotated without a class, or with one that is neither of OCELOT's."""


@dataclass(frozen=True)
class LabeledCells:
    """The cells of one image.

    Attributes
    ----------
    x, y : (N,) float64
        Position in pixels of the image; pixel i covers i … i + 1.
    label : (N,) uint8
        0 class unknown, 1 background cell, 2 tumor cell.
    nuclei : (H, W) int32, optional
        Instance masks, i + 1 in the nucleus of cell i and 0 outside; None where there are points only.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    label: NDArray[np.uint8]
    nuclei: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class CellImage:
    """An image whose cells are annotated: `load` reads them, from `label_files`; `mpp` is in µm per pixel."""

    name: str
    image: Path
    mpp: float
    label_files: tuple[Path, ...]
    load: Callable[[], LabeledCells]


@dataclass(frozen=True)
class TissueImage:
    """An image whose tissue is annotated: `load` → (H, W) uint8, 1 background, 2 cancer area, 255 unknown."""

    name: str
    image: Path
    mpp: float
    label_files: tuple[Path, ...]
    load: Callable[[], NDArray[np.uint8]]


LabeledImage = CellImage | TissueImage


def images_in(folder: Path) -> list[Path]:
    """The images of a dataset's folder, sorted by name.

    Raises
    ------
    InputError
        If there is none.
    """
    found = sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in IMAGE_ENDINGS)
    if not found:
        raise InputError(
            f"{folder}: holds no images; name the dataset's folder, which has '{folder.name}' in it"
        )
    return found


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header.

    Raises
    ------
    InputError
        If it cannot be read or lacks one of the columns.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV file ({error})") from None
    missing = [column for column in columns if column not in (reader.fieldnames or [])]
    if missing:
        raise InputError(f"{path}: has no column {', '.join(missing)}; it has {reader.fieldnames}")
    return rows


def read_mask(path: Path) -> NDArray[np.int32]:
    """A label image, (H, W) int32.

    Raises
    ------
    InputError
        If it cannot be read or has several channels.
    """
    mask = read_label_image(path)
    if mask.ndim != 2:
        raise InputError(f"{path}: must be a label image of one channel, not {mask.shape}")
    return mask.astype(np.int32)


def cancer_labels(path: Path, is_cancer: bool) -> NDArray[np.uint8]:
    """Tissue labels of an image whose glands are outlined.

    Glands of a malignant image are cancer area. What lies between them may be cancer area too, as OCELOT
    counts it, and is unknown. An image without cancer is background throughout.
    """
    glands = read_mask(path) > 0
    if not is_cancer:
        return np.ones(glands.shape, np.uint8)
    return np.where(glands, 2, 255).astype(np.uint8)
