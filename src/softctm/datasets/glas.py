"""GlaS: outlined glands of colon (Sirinukunwattana et al., Medical Image Analysis 2017).

Layout: `images/NAME.jpg`, `masks/NAME.png` (gland or not), `grade.csv` with the columns name and glas_grade.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from softctm.datasets.labeled_images import TissueImage, cancer_labels, images_in, read_table
from softctm.errors import InputError

MPP = 0.8
"""Of images that were resampled from 0.62."""


def load_glas(folder: Path) -> list[TissueImage]:
    """All images of the dataset.

    Raises
    ------
    InputError
        If the folder holds none or an image has no grade; later, if a mask is wrong.
    """
    table = folder / "grade.csv"
    grades = {row["name"]: row["glas_grade"] for row in read_table(table, ("name", "glas_grade"))}
    images = images_in(folder / "images")
    for path in images:
        if grades.get(path.stem) not in ("malignant", "benign"):
            raise InputError(
                f"{table}: '{path.stem}' must be malignant or benign, not {grades.get(path.stem)}"
            )
    masks = [folder / "masks" / f"{path.stem}.png" for path in images]
    return [
        TissueImage(
            path.stem, path, MPP, (mask,), partial(cancer_labels, mask, grades[path.stem] == "malignant")
        )
        for path, mask in zip(images, masks, strict=True)
    ]
