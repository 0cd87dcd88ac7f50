"""Crops of pairs: whatever is done to both patches, the window still says where the one lies in the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from softctm.networks.window import tissue_to_cells, window_of, window_plane
from softctm.pair import TissueWindow
from softctm.training.arrays import TrainingArrays
from softctm.training.augment import Orientation
from softctm.training.config import AugmentationConfig
from softctm.training.feeding import Draw
from softctm.training.pair_arrays import PairArrays, PairCrops, Square

SIDE = 128
STEADY = AugmentationConfig(crop=896, scale=0.1, brightness=0.0, contrast=0.0, probability=0.7)
WINDOWS = (TissueWindow(0, 0), TissueWindow(768, 301), TissueWindow(417, 768))


@pytest.fixture(scope="module")
def arrays() -> PairArrays:
    """Pairs whose colors say where in the tissue patch a pixel lies: red its column, green its row.

    Cells are tumor where the column is even to the left of the tissue's middle, tissue is cancer there.
    """
    cells, tissue, shares, labels = [], [], [], []
    for window in WINDOWS:
        for corner, side, images in ((window, 256, cells), (TissueWindow(0, 0), 1024, tissue)):
            along = (torch.arange(SIDE) + 0.5) / SIDE * side / 1024
            x, y = (start / 1024 + along for start in (corner.x, corner.y))
            image = torch.stack(
                [x.expand(SIDE, SIDE), y[:, None].expand(SIDE, SIDE), torch.zeros(SIDE, SIDE)]
            )
            images.append((image * 255).round().to(torch.uint8).numpy())
        is_left = cells[-1][0] < 128
        shares.append(np.stack([~is_left, is_left]).astype(np.uint8) * 255)
        labels.append((tissue[-1][0] < 128).astype(np.int8))
    counts = np.ones((len(WINDOWS), 2))
    return PairArrays(
        TrainingArrays(np.stack(cells), np.stack(shares), counts, digest="c"),
        TrainingArrays(np.stack(tissue), np.stack(labels), counts, digest="t"),
        WINDOWS,
    )


def check(image: Tensor, target: Tensor) -> None:
    """What the tissue patch has in the window is what the cell patch shows, and so are the targets."""
    size = (image.shape[-2], image.shape[-1])
    seen = tissue_to_cells(image[None, 3:5], window_of(image[None, 6:7]), size)[0]
    inside = (slice(None), slice(12, -12), slice(12, -12))  # at its border the tissue patch repeats
    # A step of 8 bits, resampled twice, and a window known to a fiftieth of a pixel.
    torch.testing.assert_close(seen[inside], image[:2][inside], atol=2 / 255, rtol=0)
    for place, is_left in ((image[0], target[2] > 0.5), (image[3], target[3] > 0.5)):
        certain = (place - 127.5 / 255).abs() > 2 / 255
        assert torch.equal((place < 0.5)[certain], is_left[certain])


def test_a_whole_pair_fits(arrays: PairArrays) -> None:
    for index in range(len(WINDOWS)):
        image, target = arrays.sample(index)
        assert image.shape == (7, SIDE, SIDE)
        assert target.shape == (4, SIDE, SIDE)
        check(image, target)


@pytest.mark.parametrize("magnified", [1.0, 2.0])
def test_every_crop_fits(arrays: PairArrays, magnified: float) -> None:
    config = AugmentationConfig(**{**vars(STEADY), "magnified": magnified})
    crops = PairCrops(arrays, config, STEADY, 112, 1, seed=3)
    orientations = set()
    for step, patch in itertools.product(range(50), range(len(WINDOWS))):
        image, target = crops[Draw(step, 0, patch)]
        assert image.shape == (7, 112, 112)
        check(image, target)
        # The whole window lies in the tissue crop.
        left, top, width, height = window_of(image[None, 6:7])[0].tolist()
        assert min(left, top) > -1e-3
        assert max(left + width, top + height) < 1 + 1e-3
        slopes = torch.cat([image[:2, 0, -1] - image[:2, 0, 0], image[:2, -1, 0] - image[:2, 0, 0]])
        orientations.add(tuple((slopes * 50).round().sign().tolist()))
    assert len(orientations) == 8


def test_crops_follow_from_seed_step_and_position_alone(arrays: PairArrays) -> None:
    crops = PairCrops(arrays, STEADY, STEADY, 112, 1, seed=3)
    for first, second in zip(crops[Draw(5, 1, 2)], crops[Draw(5, 1, 2)], strict=True):
        assert torch.equal(first, second)
    others = (
        crops[Draw(6, 1, 2)],
        crops[Draw(5, 0, 2)],
        PairCrops(arrays, STEADY, STEADY, 112, 1, 4)[Draw(5, 1, 2)],
    )
    assert not any(torch.equal(crops[Draw(5, 1, 2)][0], other) for other, _ in others)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=2)))
def test_a_square_goes_where_its_pixels_go(turns: int, flips: tuple[bool, bool]) -> None:
    orientation, square = Orientation(turns, flips), Square(0.125, 0.5, 0.25)
    plane = window_plane((square.left, square.top, square.side, square.side), 64)
    after = square.oriented(orientation)
    expected = window_plane((after.left, after.top, after.side, after.side), 64)
    assert torch.equal(orientation(plane), expected)


def test_squares_of_parts_by_hand() -> None:
    square = Square(0.25, 0.5, 0.25)
    assert square.part(0.5, 0.0, 0.5) == Square(0.375, 0.5, 0.125)
    assert square.within(0.25, 0.25, 0.5) == Square(0.0, 0.5, 0.5)


def test_other_windows_are_other_data(arrays: PairArrays) -> None:
    moved = PairArrays(arrays.cells, arrays.tissue, (*WINDOWS[:2], TissueWindow(416, 768)))
    assert moved.digest != arrays.digest
