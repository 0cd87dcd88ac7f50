"""EBHI-Seg: outlined epithelium of colon biopsies (Shi et al., Frontiers in Medicine 2023).

Layout: `images/NAME.jpg`, `masks/NAME.png` (epithelium of the class or not), `index.csv` with columns name
and class.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from softctm.datasets.labeled_images import TissueImage, cancer_labels, images_in, read_table
from softctm.errors import InputError

MPP = 1.2
"""Estimated; the dataset does not say."""

IS_CANCER = {
    "normal": False,
    "polyp": False,
    "low_grade_in": False,
    "serrated_adenoma": False,
    "high_grade_in": True,
    "adenocarcinoma": True,
}
"""Class → whether its epithelium counts as cancer area: high-grade neoplasia looks malignant and does."""


def load_ebhi_seg(folder: Path) -> list[TissueImage]:
    """All images of the dataset.

    Raises
    ------
    InputError
        If the folder holds none or an image has no known class; later, if a mask is wrong.
    """
    table = folder / "index.csv"
    classes = {row["name"]: row["class"] for row in read_table(table, ("name", "class"))}
    images = images_in(folder / "images")
    for path in images:
        if classes.get(path.stem) not in IS_CANCER:
            raise InputError(
                f"{table}: '{path.stem}' has class {classes.get(path.stem)}, not one of {list(IS_CANCER)}"
            )
    masks = [folder / "masks" / f"{path.stem}.png" for path in images]
    return [
        TissueImage(
            path.stem, path, MPP, (mask,), partial(cancer_labels, mask, IS_CANCER[classes[path.stem]])
        )
        for path, mask in zip(images, masks, strict=True)
    ]
