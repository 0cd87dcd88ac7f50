"""The map-style dataset of training: one augmented crop a draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from softctm.training.arrays import TrainingArrays
from softctm.training.augment import augment
from softctm.training.config import AugmentationConfig
from softctm.training.feeding import Draw


@dataclass(frozen=True)
class CropDataset(Dataset[tuple[Tensor, Tensor]]):
    """Random crops of stored patches.

    Attributes
    ----------
    arrays : TrainingArrays
    augmentation : AugmentationConfig
    crop : int
        Side of a crop at the network's resolution, pixels.
    reduction : int
        Pixels of the stored patch to one of the crop.
    seed : int
        With step and position, the only source of randomness.
    """

    arrays: TrainingArrays
    augmentation: AugmentationConfig
    crop: int
    reduction: int
    seed: int

    def __len__(self) -> int:
        return len(self.arrays.images)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """The crop of one draw: image (3 + K, crop, crop) and target as `augment` gives them."""
        rng = np.random.default_rng([self.seed, draw.step, 1 + draw.position])
        image, target = self.arrays.sample(draw.patch)
        return augment(image, target, self.augmentation, self.crop, rng, self.reduction)
