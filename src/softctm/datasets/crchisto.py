"""CRCHistoPhenotypes: points of colon nuclei (Sirinukunwattana et al., IEEE TMI 2016).

Layout: `images/NAME.jpg`, `points/NAME.csv` with the columns x, y, label: 2 tumor cell, 1 other cell,
0 not named.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from softctm.datasets.labeled_images import CellImage, LabeledCells, images_in, read_table
from softctm.errors import InputError

MPP = 0.55


def load_crchisto(folder: Path) -> list[CellImage]:
    """All images of the dataset.

    Raises
    ------
    InputError
        If the folder holds none; later, if a table of points is wrong.
    """
    images = []
    for path in images_in(folder / "images"):
        table = folder / "points" / f"{path.stem}.csv"
        images.append(CellImage(path.stem, path, MPP, (table,), partial(_cells, table)))
    return images


def _cells(path: Path) -> LabeledCells:
    rows = read_table(path, ("x", "y", "label"))
    try:
        table = np.array([[float(row[name]) for name in ("x", "y", "label")] for row in rows]).reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: x, y and label must be numbers ({error})") from None
    if not np.isin(table[:, 2], (0, 1, 2)).all():
        raise InputError(f"{path}: labels must be 0 (not named), 1 (other cell) or 2 (tumor cell)")
    return LabeledCells(table[:, 0], table[:, 1], table[:, 2].astype(np.uint8))
