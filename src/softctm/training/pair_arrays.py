"""Pairs for networks that see both patches: arrays of either patch, and random crops that fit together."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from softctm.networks.window import window_plane
from softctm.pair import PATCH_SIZE, WINDOW_SIZE, TissueWindow
from softctm.training.arrays import TrainingArrays
from softctm.training.augment import Orientation, cut, random_side, recolored
from softctm.training.config import AugmentationConfig
from softctm.training.feeding import Draw


@dataclass(frozen=True)
class Square:
    """A square in a patch, in shares of the patch's side: where a window lies."""

    left: float
    top: float
    side: float

    def within(self, left: float, top: float, side: float) -> Square:
        """The same square in shares of a part of the patch, given in shares of the whole one."""
        return Square((self.left - left) / side, (self.top - top) / side, self.side / side)

    def part(self, left: float, top: float, side: float) -> Square:
        """A part of this square, given in shares of it."""
        return Square(self.left + left * self.side, self.top + top * self.side, self.side * side)

    def oriented(self, orientation: Orientation) -> Square:
        """Where the square comes to lie when the patch is so oriented."""
        left, top, rest = self.left, self.top, 1 - self.side
        for _ in range(orientation.turns):
            left, top = top, rest - left
        flipped, upside_down = orientation.flips
        return Square(rest - left if flipped else left, rest - top if upside_down else top, self.side)


@dataclass(frozen=True)
class PairArrays:
    """Pairs as they are stored for a network: patches and targets of both tasks at one size.

    Attributes
    ----------
    cells, tissue : TrainingArrays
        Of the same pairs, in the same order.
    windows : sequence of TissueWindow
        Where each cell patch lies in its tissue patch.
    """

    cells: TrainingArrays
    tissue: TrainingArrays
    windows: tuple[TissueWindow, ...]

    @property
    def counts(self) -> NDArray[np.float64]:
        """Cells of each class, for sampling."""
        return self.cells.counts

    @property
    def digest(self) -> str:
        """Of everything in them."""
        parts = (self.cells.digest, self.tissue.digest, repr(self.windows))
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def window(self, index: int) -> Square:
        """Where a pair's cell patch lies in its tissue patch."""
        corner = self.windows[index]
        return Square(corner.x / PATCH_SIZE, corner.y / PATCH_SIZE, WINDOW_SIZE / PATCH_SIZE)

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """A whole pair, (7, S, S) and (4, S, S) float32; see `joined`."""
        return joined(*self.cells.sample(index), *self.tissue.sample(index), self.window(index))


def joined(
    cell: Tensor, target: Tensor, tissue: Tensor, labels: Tensor, window: Square
) -> tuple[Tensor, Tensor]:
    """One sample of the images and targets of both patches, all of the same size S.

    Returns
    -------
    image : (7, S, S) float32
        RGB of the cell patch, RGB of the tissue patch, and the window as `PairNetwork` takes it.
    target : (4, S, S) float32
        The cell map's three shares, and the tissue label: 0, 1, or −1 where it is unknown.
    """
    plane = window_plane((window.left, window.top, window.side, window.side), cell.shape[-1])
    return torch.cat([cell, tissue, plane]), torch.cat([target, labels[None].float()])


@dataclass(frozen=True)
class PairCrops(Dataset[tuple[Tensor, Tensor]]):
    """Random crops of pairs: of both patches by themselves, turned together.

    The crop of the cell patch lies in that of the tissue patch, and the window says where.

    Attributes
    ----------
    arrays : PairArrays
    cells, tissue : AugmentationConfig
        Of either patch; the orientation follows that of the cells.
    crop : int
        Side of a crop at the network's resolution, pixels.
    reduction : int
        Pixels of the stored patches to one of the crop.
    seed : int
        With step and position, the only source of randomness.
    """

    arrays: PairArrays
    cells: AugmentationConfig
    tissue: AugmentationConfig
    crop: int
    reduction: int
    seed: int

    def __len__(self) -> int:
        return len(self.arrays.windows)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """The crop of one draw: image (7, crop, crop) and target (4, crop, crop); see `joined`."""
        rng = np.random.default_rng([self.seed, draw.step, 1 + draw.position])
        cell, target = self.arrays.cells.sample(draw.patch)
        tissue, labels = self.arrays.tissue.sample(draw.patch)
        length, usual, crop = cell.shape[-1], self.crop * self.reduction, self.crop

        side = random_side(self.cells, usual, length, rng)
        top, left = (int(rng.integers(0, length - side + 1)) for _ in range(2))
        cell, target = (cut(planes, top, left, side, crop) for planes in (cell, target))
        window = self.arrays.window(draw.patch).part(left / length, top / length, side / length)

        side = random_side(self.tissue, usual, length, rng)
        side = max(side, math.ceil(window.side * length) + 1)  # there is room for the window at any place
        top, left = (_start(corner, window.side, side, length, rng) for corner in (window.top, window.left))
        tissue, labels = (cut(planes, top, left, side, crop) for planes in (tissue, labels))
        window = window.within(left / length, top / length, side / length)

        orientation = Orientation.random(self.cells, rng)
        cell, target, tissue, labels = (orientation(planes) for planes in (cell, target, tissue, labels))
        cell, tissue = recolored(cell, self.cells, rng), recolored(tissue, self.tissue, rng)
        return joined(cell, target, tissue, labels, window.oriented(orientation))


def _start(corner: float, share: float, side: int, length: int, rng: np.random.Generator) -> int:
    """Where a crop of `side` of `length` pixels begins that holds the window from `corner` on."""
    first = max(0, math.ceil((corner + share) * length - side - 1e-6))
    last = min(math.floor(corner * length + 1e-6), length - side)
    return int(rng.integers(first, max(first, last) + 1))
