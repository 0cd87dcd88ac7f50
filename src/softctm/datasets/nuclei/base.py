"""What every data set of annotated nuclei offers, whatever its files look like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.dataset_images import IMAGE_ENDINGS
from softctm.errors import InputError
from softctm.nuclei_table import NucleiTable, NucleusType, types_named

UNTYPED = types_named(["nucleus"])
"""Types of a data set that does not tell types apart."""


@dataclass(frozen=True)
class NucleiLabels:
    """The nuclei of one image.

    Attributes
    ----------
    instances : (H, W) int32
        0 background, else a nucleus.
    table : NucleiTable
        All of them; their types are numbers of the data set's types.
    """

    instances: NDArray[np.int32]
    table: NucleiTable


class NucleiDataset(ABC):
    """Images with annotated nuclei, read one at a time.

    Parameters
    ----------
    folder : Path
        Of the layout that the class stands for.

    Raises
    ------
    InputError
        On opening or reading, if a file is missing or malformed.

    Attributes
    ----------
    types : tuple of NucleusType
        By number, background first; `UNTYPED` where nuclei have no types.
    names : sequence of str
        One an image, each once, in the order of reading.
    organs : sequence of str or None
        One an image; None where it is unknown.
    """

    types: tuple[NucleusType, ...]
    names: Sequence[str]
    organs: Sequence[str | None]

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Find the images; read none."""

    @staticmethod
    @abstractmethod
    def recognizes(folder: Path) -> bool:
        """Whether a folder has this layout."""

    @abstractmethod
    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""

    @abstractmethod
    def labels(self, index: int) -> NucleiLabels:
        """The nuclei of that image."""


class SomeImages(NucleiDataset):
    """Some images of a data set, in its order.

    Parameters
    ----------
    whole : NucleiDataset
    names : collection of str
        Of its images.
    """

    def __init__(self, whole: NucleiDataset, names: Collection[str]) -> None:
        self._whole = whole
        self._places = [place for place, name in enumerate(whole.names) if name in names]
        self.types = whole.types
        self.names = [whole.names[place] for place in self._places]
        self.organs = [whole.organs[place] for place in self._places]

    @staticmethod
    def recognizes(folder: Path) -> bool:
        """It is made of another one, never of a folder."""
        return False

    def image(self, index: int) -> NDArray[np.uint8]:
        """See `NucleiDataset.image`."""
        return self._whole.image(self._places[index])

    def labels(self, index: int) -> NucleiLabels:
        """See `NucleiDataset.labels`."""
        return self._whole.labels(self._places[index])


def image_named(folder: Path, name: str) -> Path:
    """The image of that name, with any of the usual endings.

    Raises
    ------
    InputError
        If there is none.
    """
    for ending in IMAGE_ENDINGS:
        for spelling in (ending, ending.upper()):
            if (path := folder / f"{name}{spelling}").is_file():
                return path
    raise InputError(f"{folder}: no image {name} ({', '.join(IMAGE_ENDINGS)}); add it")


def whole_numbers(array: NDArray[np.generic], path: Path) -> NDArray[np.int32]:
    """A label map (H, W) as int32.

    Raises
    ------
    InputError
        If it has another shape, or values that are no whole numbers from 0.
    """
    # In 64 bits, where both 32-bit whole numbers and what is too large for them keep their values.
    numbers = array.astype(np.float64) if array.ndim == 2 else np.zeros((0, 0))
    if array.ndim != 2 or not array.size:
        raise InputError(f"{path}: a label map must have two dimensions, not the shape {array.shape}")
    if not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > 2**31 - 1:
        raise InputError(f"{path}: labels must lie in 0 … {2**31 - 1}")
    if (numbers != np.floor(numbers)).any():
        raise InputError(f"{path}: labels must be whole numbers")
    return array.astype(np.int32)
