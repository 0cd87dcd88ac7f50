"""CoNSeP as it is published: `Images/NAME.png` and `Labels/NAME.mat`.

A MATLAB file holds `inst_map` (H, W), and `inst_type` (n, 1) and `inst_centroid` (n, 2), one row per nucleus
by rising number. The published parts `Train` and `Test` may be given together or each by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.dataset_images import read_rgb
from softctm.datasets.nuclei.base import NucleiDataset, NucleiLabels, image_named, whole_numbers
from softctm.errors import InputError
from softctm.nuclei_table import tabulate, types_named

CONSEP_TYPES = types_named(
    (
        "other",
        "inflammatory",
        "healthy_epithelial",
        "malignant_epithelial",
        "fibroblast",
        "muscle",
        "endothelial",
    )
)


class CoNSeP(NucleiDataset):
    """A data set of this layout."""

    types = CONSEP_TYPES

    def __init__(self, folder: Path) -> None:
        self._files = _files(folder)
        self.names = [path.stem for path in self._files]
        if len(set(self.names)) < len(self.names):
            raise InputError(f"{folder}: two .mat files have one name; give one part at a time")
        self.organs: list[str | None] = ["colon"] * len(self.names)

    @staticmethod
    def recognizes(folder: Path) -> bool:
        """Whether a folder has this layout."""
        return bool(_files(folder))

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        path = self._files[index]
        return read_rgb(image_named(path.parents[1] / "Images", path.stem))

    def labels(self, index: int) -> NucleiLabels:
        """The nuclei of that image."""
        path = self._files[index]
        content = _content(path)
        instances = whole_numbers(content["inst_map"], path)
        ids = np.unique(instances)
        ids = ids[ids > 0]
        types = np.asarray(content["inst_type"]).ravel()
        if len(types) != len(ids):
            raise InputError(f"{path}: inst_type has {len(types)} rows for {len(ids)} nuclei of inst_map")
        if not np.isin(types, np.arange(1, len(CONSEP_TYPES))).all():
            raise InputError(f"{path}: inst_type must lie in 1 … {len(CONSEP_TYPES) - 1}")
        kinds = np.zeros(int(instances.max()) + 1, np.int64)
        kinds[ids] = types.astype(np.int64)
        return NucleiLabels(instances, tabulate(instances, kinds[instances]))


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("Labels/*.mat"), *folder.glob("*/Labels/*.mat")])


def _content(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(path, variable_names=("inst_map", "inst_type"))
    except Exception as error:  # loadmat raises whatever a damaged file leads to
        raise InputError(f"{path}: cannot be read as a MATLAB file ({error}); replace it") from None
    for name in ("inst_map", "inst_type"):
        if name not in content:
            raise InputError(f"{path}: {name} is missing; give CoNSeP's own label files")
    return content
