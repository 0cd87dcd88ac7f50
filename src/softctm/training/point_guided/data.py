"""Crops around nuclei with guiding points, as a point-guided network's training sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from softctm.datasets.labeled_images import CellImage, LabeledImage
from softctm.errors import InputError, UsageError
from softctm.pair import CELL_MPP
from softctm.training.feeding import Draw
from softctm.training.labeled_arrays import at_scale, masks_of_size
from softctm.training.nuclei.augment import NucleiAugmentationConfig, augment_nuclei
from softctm.training.nuclei.data import TrainingImage, digest_of
from softctm.training.nuclei.targets import UNKNOWN_TYPE

SPREAD = 0.4
"""How far from its center a nucleus may be annotated, as a share of the way to its outline."""


def load_masked_images(data: Mapping[str, Sequence[LabeledImage]]) -> list[TrainingImage]:
    """All images of some datasets at 0.2 mpp, with the instance masks of their nuclei.

    Parameters
    ----------
    data : mapping of str to sequence of LabeledImage
        Dataset → its images, each with its own µm per pixel.

    Raises
    ------
    UsageError
        If a dataset has no instance masks.
    InputError
        If a file cannot be read.
    """
    loaded = []
    for dataset, images in data.items():
        for image in images:
            masks = image.load().nuclei if isinstance(image, CellImage) else None
            if masks is None:
                raise UsageError(f"--data {dataset}: has no instance masks of nuclei; leave it out")
            rgb = at_scale(image, CELL_MPP)
            nuclei = masks_of_size(masks, (rgb.shape[0], rgb.shape[1]))
            type_of = np.full(int(nuclei.max(initial=0)) + 1, UNKNOWN_TYPE)
            loaded.append(TrainingImage(f"{dataset}/{image.name}", rgb, nuclei, type_of))
    return loaded


def inner_points(
    masks: NDArray[np.integer], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """A point in every nucleus, near its center: where an annotator may have put it.

    It lies `SPREAD` of the way from the centroid to a random pixel of the nucleus, or at that pixel where
    this is not inside, as in crescents.

    Parameters
    ----------
    masks : (H, W) int
        0 outside, else a nucleus.
    rng : numpy Generator

    Returns
    -------
    ids, rows, columns : (N,) int64
        By rising ID.
    """
    place = np.argwhere(masks)
    owner = masks[place[:, 0], place[:, 1]]
    order = np.argsort(owner, kind="stable")
    place, owner = place[order], owner[order]
    ids, first, size = np.unique(owner, return_index=True, return_counts=True)
    if not len(ids):
        return ids.astype(np.int64), *np.zeros((2, 0), np.int64)
    centroid = np.add.reduceat(place, first) / size[:, None]
    chosen = place[first + (rng.random(len(ids)) * size).astype(np.int64)]
    near = np.rint(centroid + SPREAD * (chosen - centroid)).astype(np.int64)
    is_inside = masks[near[:, 0], near[:, 1]] == ids
    points = np.where(is_inside[:, None], near, chosen)
    return ids.astype(np.int64), points[:, 0], points[:, 1]


@dataclass(frozen=True)
class GuidedCrops(Dataset[tuple[Tensor, Tensor]]):
    """One item a nucleus: the crop around its point, changed anew in every draw.

    Nuclei so close to the border that a crop would reach beyond it are left out.

    Attributes
    ----------
    images : sequence of TrainingImage
        At 0.2 mpp.
    config : NucleiAugmentationConfig
    seed : int
        With step and position, the only source of randomness.

    Raises
    ------
    InputError
        When the nuclei are asked for, if there is none.
    """

    images: Sequence[TrainingImage]
    config: NucleiAugmentationConfig
    seed: int = 0

    @property
    def nuclei(self) -> list[tuple[int, int, tuple[slice, slice]]]:
        """Image, ID and bounding box of each nucleus."""
        if not self.has_nuclei:
            raise InputError(
                f"no nucleus lies {self._margin} pixels of {CELL_MPP} µm or more from all borders"
            )
        return self._found

    @property
    def has_nuclei(self) -> bool:
        """Whether there is any."""
        return bool(self._found)

    @property
    def _margin(self) -> int:
        return math.ceil(self.config.crop / 2 * (1 + self.config.scale))

    @cached_property
    def _found(self) -> list[tuple[int, int, tuple[slice, slice]]]:
        found, margin = [], self._margin
        for index, image in enumerate(self.images):
            height, width = image.instances.shape
            for number, box in enumerate(ndimage.find_objects(image.instances), start=1):
                if box is not None and all(
                    margin <= part.start and part.stop <= side - margin
                    for part, side in zip(box, (height, width), strict=True)
                ):
                    found.append((index, number, box))
        return found

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """(N,) probability of drawing each nucleus; a dataset weighs as the root of its number of nuclei."""
        datasets = [self.images[index].name.split("/")[0] for index, _, _ in self.nuclei]
        _, number, counts = np.unique(datasets, return_inverse=True, return_counts=True)
        weights = 1 / np.sqrt(counts)
        probability: NDArray[np.float64] = weights[number] / weights[number].sum()
        return probability

    @property
    def digest(self) -> str:
        """SHA-256 of all images and masks."""
        return digest_of(self.images, ("image", "instances"))

    def __len__(self) -> int:
        return len(self.nuclei)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """RGB and both guides, (5, S, S) float32, and the nucleus's mask, (1, S, S) float32."""
        rng = np.random.default_rng([self.seed, draw.step, 1 + draw.position])
        index, own, box = self.nuclei[draw.patch]
        image, side = self.images[index], self.config.crop
        mask = image.instances[box] == own
        _, row, column = inner_points(mask, rng)
        center = (float(row[0]) + box[0].start, float(column[0]) + box[1].start)
        pixels, ids = augment_nuclei(image.image, image.instances, center, self.config, rng)
        guides = torch.zeros(2, side, side)
        guides[0, side // 2, side // 2] = 1
        _, rows, columns = inner_points(np.where(ids == own, 0, ids), rng)
        guides[1, rows, columns] = 1
        return torch.cat([pixels, guides]), torch.from_numpy((ids == own).astype(np.float32))[None]
