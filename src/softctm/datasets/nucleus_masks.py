"""Instance masks of nuclei as cells: CoNSeP (Graham et al. 2019) and MoNuSeg (Kumar et al. 2017).

Layout: `images/NAME.jpg`, `instances/NAME.png` (16 bits, 0 outside), and for CoNSeP `types/NAME.csv` with the
columns id and type.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from softctm.datasets.labeled_images import (
    UNKNOWN_CLASS,
    CellImage,
    LabeledCells,
    images_in,
    read_mask,
    read_table,
)
from softctm.errors import InputError
from softctm.points import CellClass

CONSEP_MPP, MONUSEG_MPP = 0.275, 0.25

CONSEP_CLASSES = {
    "malignant_epithelial": int(CellClass.TUMOR),
    "healthy_epithelial": int(CellClass.BACKGROUND),
    "inflammatory": int(CellClass.BACKGROUND),
    "fibroblast": int(CellClass.BACKGROUND),
    "muscle": int(CellClass.BACKGROUND),
    "endothelial": int(CellClass.BACKGROUND),
    "other": UNKNOWN_CLASS,
}
"""CoNSeP's types as OCELOT's classes."""


def load_consep(folder: Path) -> list[CellImage]:
    """All images of CoNSeP; InputError if there is none, or later if a file is wrong."""
    return _load(folder, CONSEP_MPP, has_types=True)


def load_monuseg(folder: Path) -> list[CellImage]:
    """All images of MoNuSeg, whose cells have no class; errors as `load_consep`."""
    return _load(folder, MONUSEG_MPP, has_types=False)


def _load(folder: Path, mpp: float, has_types: bool) -> list[CellImage]:
    images = []
    for path in images_in(folder / "images"):
        masks = folder / "instances" / f"{path.stem}.png"
        types = folder / "types" / f"{path.stem}.csv" if has_types else None
        files = (masks, types) if types else (masks,)
        images.append(CellImage(path.stem, path, mpp, files, partial(_cells, masks, types)))
    return images


def _cells(masks: Path, types: Path | None) -> LabeledCells:
    instances = read_mask(masks)
    identities = np.flatnonzero(np.bincount(instances.ravel()))
    identities = identities[identities > 0]
    label = np.full(len(identities), UNKNOWN_CLASS, np.uint8)
    if types is not None:
        named = _types(types)
        missing = [int(identity) for identity in identities if int(identity) not in named]
        if missing:
            raise InputError(f"{types}: has no row for nucleus {missing[0]} and {len(missing) - 1} others")
        label[:] = [named[int(identity)] for identity in identities]
    order = np.zeros(int(instances.max(initial=0)) + 1, np.int32)
    order[identities] = np.arange(1, len(identities) + 1)
    nuclei = order[instances]
    centers = np.array(ndimage.center_of_mass(nuclei > 0, nuclei, np.arange(1, len(identities) + 1)))
    centers = centers.reshape(-1, 2) + 0.5
    return LabeledCells(centers[:, 1], centers[:, 0], label, nuclei)


def _types(path: Path) -> dict[int, int]:
    classes = {}
    for row in read_table(path, ("id", "type")):
        if row["type"] not in CONSEP_CLASSES:
            raise InputError(f"{path}: type '{row['type']}' is none of {', '.join(CONSEP_CLASSES)}")
        if not row["id"].isdigit():
            raise InputError(f"{path}: id '{row['id']}' is not a whole number; correct it")
        classes[int(row["id"])] = CONSEP_CLASSES[row["type"]]
    return classes
