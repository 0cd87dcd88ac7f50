"""Nuclei images as a network's training sees them: patches, each drawn as a changed crop with its targets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from softctm.datasets.nuclei.base import UNTYPED, NucleiDataset
from softctm.errors import InputError
from softctm.training.feeding import Draw
from softctm.training.nuclei.augment import NucleiAugmentationConfig, augment_nuclei
from softctm.training.nuclei.targets import UNKNOWN_TYPE, nuclei_target


@dataclass(frozen=True)
class TrainingImage:
    """One image and what is known of its nuclei.

    Attributes
    ----------
    name : str
        Data set and image.
    image : (H, W, 3) uint8
        RGB.
    instances : (H, W) int32
        0 is background.
    type_of : (N,) int64
        Type of each instance ID, 0 for background; `UNKNOWN_TYPE` where not annotated.
    tissue : int
        Class of the tissue, or `UNKNOWN_TYPE`.
    """

    name: str
    image: NDArray[np.uint8]
    instances: NDArray[np.int32]
    type_of: NDArray[np.int64]
    tissue: int = UNKNOWN_TYPE


def load_training_images(
    datasets: Sequence[tuple[str, NucleiDataset]],
) -> tuple[list[TrainingImage], tuple[str, ...], tuple[str, ...]]:
    """All images of some data sets, in memory, with common numbers of types and tissues.

    Parameters
    ----------
    datasets : sequence of (name, NucleiDataset)
        Those without types teach where nuclei are, not what they are.

    Returns
    -------
    images : list of TrainingImage
    types : tuple of str
        Background first.
    tissues : tuple of str

    Raises
    ------
    InputError
        If an image cannot be read, or no data set has types.
    """
    typed = [dataset for _, dataset in datasets if dataset.types != UNTYPED]
    names = sorted({kind.name for dataset in typed for kind in dataset.types[1:]})
    if not names:
        raise InputError("none of the data sets tells types of nuclei; add one that does by --data")
    tissues = sorted({organ for _, dataset in datasets for organ in dataset.organs if organ})
    images = []
    for label, dataset in datasets:
        if dataset.types == UNTYPED:
            common = np.array([0, UNKNOWN_TYPE])
        else:
            common = np.array([0, *(1 + names.index(kind.name) for kind in dataset.types[1:])])
        for index, name in enumerate(dataset.names):
            labels = dataset.labels(index)
            type_of = np.zeros(int(labels.instances.max(initial=0)) + 1, np.int64)
            type_of[labels.table.id] = common[labels.table.type]
            organ = dataset.organs[index]
            tissue = tissues.index(organ) if organ else UNKNOWN_TYPE
            image = dataset.image(index)
            if image.shape[:2] != labels.instances.shape:
                raise InputError(
                    f"{label}/{name}: the image is {image.shape[:2]}, its labels {labels.instances.shape}; "
                    "give both the same size"
                )
            images.append(TrainingImage(f"{label}/{name}", image, labels.instances, type_of, tissue))
    return images, ("background", *names), tuple(tissues)


def digest_of(images: Sequence[TrainingImage], parts: Sequence[str]) -> str:
    """SHA-256 of some of the images' arrays, by name."""
    found = hashlib.sha256()
    for image in images:
        for name in parts:
            found.update(np.ascontiguousarray(getattr(image, name)).data)
    return found.hexdigest()


@dataclass(frozen=True)
class NucleiPatches(Dataset[tuple[Tensor, Tensor]]):
    """Images cut into patches of one crop's size; each patch is drawn as a new crop around its place.

    Attributes
    ----------
    images : sequence of TrainingImage
    types : int
        Number of types, background included.
    config : NucleiAugmentationConfig
    downsampling : int
        Of the crops against the images.
    seed : int
        With step and position, the only source of randomness.
    """

    images: Sequence[TrainingImage]
    types: int
    config: NucleiAugmentationConfig
    downsampling: int = 1
    seed: int = 0

    @cached_property
    def corners(self) -> list[tuple[int, int, int]]:
        """Image, top and left of each patch; the patches of an image tile it evenly."""
        found = []
        for index, image in enumerate(self.images):
            tops, lefts = (self._tiles(side) for side in image.instances.shape)
            found += [(index, int(top), int(left)) for top in tops for left in lefts]
        return found

    def _tiles(self, side: int) -> NDArray[np.float64]:
        crop = self.config.crop
        return np.linspace(0, max(side - crop, 0), -(-side // crop))

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """(N, types − 1): the types that each patch holds."""
        result = np.zeros((len(self.corners), self.types - 1), bool)
        for row, (index, top, left) in enumerate(self.corners):
            image = self.images[index]
            ids = np.unique(image.instances[top : top + self.config.crop, left : left + self.config.crop])
            held = image.type_of[ids]
            result[row, held[held > 0] - 1] = True
        return result

    @cached_property
    def tissue(self) -> NDArray[np.int64]:
        """(N,): a number for the tissue of each patch's image, or for its data set where that is unknown."""
        groups = [
            image.name.split("/")[0] if image.tissue == UNKNOWN_TYPE else str(image.tissue)
            for image in self.images
        ]
        numbers = np.unique(groups, return_inverse=True)[1]
        return np.array([numbers[index] for index, _, _ in self.corners], np.int64)

    @property
    def digest(self) -> str:
        """SHA-256 of all images and what is known of their nuclei and tissue."""
        is_known = any(image.tissue != UNKNOWN_TYPE for image in self.images)
        return digest_of(self.images, ("image", "instances", "type_of", *(["tissue"] if is_known else [])))

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """One crop around a patch: image (3, S, S) in [0, 1], target as `nuclei_target` makes it."""
        rng = np.random.default_rng([self.seed, draw.step, 1 + draw.position])
        index, top, left = self.corners[draw.patch]
        image, crop = self.images[index], self.config.crop
        row, column = (
            float(np.clip(first + rng.uniform(-crop / 2, crop / 2), 0, max(side - crop, 0))) + (crop - 1) / 2
            for first, side in zip((top, left), image.instances.shape, strict=True)
        )
        pixels, ids = augment_nuclei(
            image.image, image.instances, (row, column), self.config, rng, self.downsampling
        )
        return pixels, torch.from_numpy(nuclei_target(ids, image.type_of, image.tissue))
