"""PanNuke as it is published: `images.npy`, `masks.npy` and `types.npy` of one fold or of several.

A fold's arrays lie in a folder, or as in the published archives in `images/fold1` and `masks/fold1` below it.
They are memory-mapped: an image is read when it is asked for. Masks have six channels, five types and
background, and within a channel a number a nucleus; where channels overlap, the later one holds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.nuclei.base import NucleiDataset, NucleiLabels
from softctm.errors import InputError
from softctm.nuclei_table import PANNUKE_TYPES, tabulate

_FILES = ("images.npy", "masks.npy", "types.npy")
_CHANNELS = len(PANNUKE_TYPES)


class PanNuke(NucleiDataset):
    """A data set of this layout; an image is named by its fold's folder and its place there."""

    types = PANNUKE_TYPES

    def __init__(self, folder: Path) -> None:
        self._place: list[tuple[int, int]] = []
        self._folds: list[tuple[NDArray[np.generic], NDArray[np.generic], Path]] = []
        self.names: list[str] = []
        self.organs: list[str | None] = []
        for paths in _folds(folder):
            images, masks, organs = (_mapped(path) for path in paths)
            count = len(images)
            if images.shape[1:] != (*images.shape[1:3], 3) or masks.shape != (*images.shape[:3], _CHANNELS):
                raise InputError(
                    f"{paths[0].parent}: images {images.shape} and masks {masks.shape} must be "
                    f"(N, H, W, 3) and (N, H, W, {_CHANNELS})"
                )
            if organs.shape != (count,):
                raise InputError(f"{paths[2]}: {organs.shape} organs for {count} images")
            self._place += [(len(self._folds), i) for i in range(count)]
            self.names += [f"{_fold_name(paths[0], folder)}_{i:04d}" for i in range(count)]
            self.organs += [str(organ) for organ in organs.tolist()]
            self._folds.append((images, masks, paths[1]))

    @staticmethod
    def recognizes(folder: Path) -> bool:
        """Whether a folder has this layout."""
        return bool(_folds(folder))

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        fold, place = self._place[index]
        # Published as float64 with whole numbers.
        values = self._folds[fold][0][place].astype(np.float64)
        pixels: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return pixels

    def labels(self, index: int) -> NucleiLabels:
        """The nuclei of that image, numbered by type, then as in the file."""
        fold, place = self._place[index]
        masks, path = self._folds[fold][1:]
        numbers = np.asarray(masks[place][..., :-1]).astype(np.int64)
        if numbers.min() < 0:
            raise InputError(f"{path}: labels must not be negative (image {place})")
        kinds = np.zeros(numbers.shape[:2], np.int64)
        codes = np.zeros(numbers.shape[:2], np.int64)
        length = int(numbers.max()) + 1
        for channel in range(_CHANNELS - 1):
            layer = numbers[..., channel]
            codes = np.where(layer > 0, channel * length + layer, codes)
            kinds = np.where(layer > 0, channel + 1, kinds)
        found, place_of = np.unique(codes, return_inverse=True)
        instances = place_of.reshape(codes.shape).astype(np.int32) + np.int32(found[0] > 0)
        return NucleiLabels(instances, tabulate(instances, kinds))


def _folds(folder: Path) -> list[tuple[Path, Path, Path]]:
    """The files of each fold, in the order of the folds' names."""
    found = []
    for images in sorted({*folder.glob("images.npy"), *folder.glob("*/images.npy")}):
        found.append(tuple(images.parent / name for name in _FILES))
    for images in sorted({*folder.glob("images/*/images.npy"), *folder.glob("*/images/*/images.npy")}):
        masks = images.parents[2] / "masks" / images.parent.name
        found.append((images, masks / "masks.npy", images.parent / "types.npy"))
    return [(paths[0], paths[1], paths[2]) for paths in found]


def _fold_name(images: Path, folder: Path) -> str:
    """The folder that holds the fold's images, which the archives call by the fold as well."""
    return images.parent.name or folder.resolve().name


def _mapped(path: Path) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as a NumPy array ({error}); replace it") from None
    return array
