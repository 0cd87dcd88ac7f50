"""Random changes, seen through pictures whose pixels know where they came from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from skimage.color import rgb2hed
from torch import Tensor

from softctm.training.augment import augment, change_color, change_stain
from softctm.training.config import AugmentationConfig

SIDE, CROP = 64, 48
ALWAYS = AugmentationConfig(probability=1.0)
NEVER = AugmentationConfig(probability=0.0)


def places(side: int = SIDE) -> Tensor:
    """Column and row of every pixel, (2, side, side)."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([columns, rows]).float()


def picture(side: int = SIDE) -> Tensor:
    """Random RGB, then the places as context."""
    rgb = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    return torch.cat([rgb, places(side)])


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(8))
def test_image_and_target_go_the_same_way(seed: int) -> None:
    image, target = augment(picture(), places(), ALWAYS, CROP, rng(seed))
    assert image.shape == (5, CROP, CROP)
    assert target.shape == (2, CROP, CROP)
    torch.testing.assert_close(image[3:], target)
    # Unlike the colors, neither the context nor the target changes its values.
    assert target.min() >= 0
    assert target.max() <= SIDE - 1


@pytest.mark.parametrize("seed", range(8))
def test_labels_go_with_the_image_and_stay_labels(seed: int) -> None:
    labels = torch.ones(SIDE, SIDE, dtype=torch.int64)
    labels[: SIDE // 2] = 0
    labels[:, : SIDE // 4] = -1
    image, found = augment(torch.cat([picture()[:3], places()]), labels, ALWAYS, CROP, rng(seed))
    assert found.dtype == torch.int64
    assert found.shape == (CROP, CROP)
    column, row = image[3], image[4]
    expected = torch.where(row < SIDE // 2 - 0.5, 0, 1)
    expected[column < SIDE // 4 - 0.5] = -1
    # Away from the borders, where neighbors mix.
    certain = ((row - SIDE // 2 + 0.5).abs() > 1.5) & ((column - SIDE // 4 + 0.5).abs() > 1.5)
    assert certain.float().mean() > 0.7
    assert torch.equal(found[certain], expected[certain])
    assert set(found.unique().tolist()) <= {-1, 0, 1}


@pytest.mark.parametrize("seed", range(5))
def test_probability_0_is_a_plain_crop(seed: int) -> None:
    whole = picture()
    image, target = augment(whole, places(), NEVER, CROP, rng(seed))
    left, top = (int(value) for value in target[:, 0, 0])
    assert torch.equal(image, whole[:, top : top + CROP, left : left + CROP])


def test_crops_reach_every_part_of_the_patch() -> None:
    corners = [augment(picture(8), places(8), NEVER, 6, rng(seed))[1][:, 0, 0] for seed in range(60)]
    assert {tuple(corner.tolist()) for corner in corners} == set(itertools.product([0, 1, 2], [0, 1, 2]))


def test_crop_as_large_as_the_patch_is_the_patch() -> None:
    image, _ = augment(picture(), places(), NEVER, SIDE, rng(0))
    assert torch.equal(image, picture())


def test_all_eight_turns_and_flips_occur_and_nothing_else() -> None:
    config = AugmentationConfig(scale=0.0, brightness=0.0, contrast=0.0, probability=0.5)
    whole = places(4)
    expected = [torch.rot90(flipped, k, (-2, -1)) for flipped in (whole, whole.flip(-1)) for k in range(4)]
    image = torch.cat([torch.rand(3, 4, 4), whole])
    seen = set()
    for seed in range(150):
        _, found = augment(image, whole, config, 4, rng(seed))
        matching = [i for i, view in enumerate(expected) if torch.equal(view, found)]
        assert len(matching) == 1
        seen.add(matching[0])
    assert seen == set(range(8))


def test_each_axis_is_flipped_with_the_probability() -> None:
    config = AugmentationConfig(scale=0.0, brightness=0.0, contrast=0.0, probability=1.0)
    whole = places(4)
    image = torch.cat([torch.rand(3, 4, 4), whole])
    turned = [torch.rot90(whole.flip(-1, -2), k, (-2, -1)) for k in range(4)]
    for seed in range(20):
        _, found = augment(image, whole, config, 4, rng(seed))
        assert any(torch.equal(view, found) for view in turned)


def test_scale_stays_within_a_tenth_and_goes_both_ways() -> None:
    config = AugmentationConfig(scale=0.1, brightness=0.0, contrast=0.0, probability=1.0)
    spans = []
    for seed in range(60):
        _, target = augment(picture(), places(), config, CROP, rng(seed))
        # Source pixels per result pixel, away from the border's replicated samples.
        inner = target[:, 8:-8, 8:-8]
        spans.append((inner.amax((1, 2)) - inner.amin((1, 2))).max().item() / (CROP - 17))
    rounding = 0.5 / CROP
    assert 1 / 1.1 - rounding <= min(spans) < 0.95
    assert 1.05 < max(spans) <= 1 / 0.9 + rounding


def test_scale_never_asks_for_more_than_the_patch_has() -> None:
    for seed in range(10):
        image, _ = augment(picture(), places(), ALWAYS, SIDE, rng(seed))
        assert image.shape[-2:] == (SIDE, SIDE)


def test_a_reduced_crop_is_the_mean_of_its_blocks() -> None:
    whole, blocks = places(), places().unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4))
    for seed in range(5):
        image, target = augment(picture(), whole, NEVER, 24, rng(seed), reduction=2)
        left, top = (target[:, 0, 0] - 0.5).int().tolist()
        assert target.shape == (2, 24, 24)
        torch.testing.assert_close(image[3:], target)
        torch.testing.assert_close(
            target - target[:, :1, :1], (blocks - blocks[:, :1, :1])[:, :24, :24], rtol=0, atol=1e-4
        )
        assert 0 <= left <= SIDE - 48
        assert 0 <= top <= SIDE - 48


def test_magnified_crops_reach_from_the_usual_pixels_to_the_finest_every_ratio_alike() -> None:
    config = AugmentationConfig(probability=0.0, magnified=2.0)
    magnifications = []
    for seed in range(400):
        _, target = augment(picture(), places(), config, 32, rng(seed), reduction=2)
        step = (target[0, 16, 24] - target[0, 16, 8]).item() / 16
        magnifications.append(2 / step)
    assert 0.97 < min(magnifications) < 1.03
    assert 1.94 < max(magnifications) < 2.06
    below = np.mean(np.array(magnifications) < np.sqrt(2))
    assert abs(below - 0.5) < 3 * np.sqrt(0.25 / 400)


def test_color_changes_stay_within_a_fifth() -> None:
    config = AugmentationConfig(brightness=0.2, contrast=0.2)
    checks = (np.indices((16, 16)).sum(0) % 2).astype(np.float32)
    rgb = torch.from_numpy(np.stack([0.4 + 0.2 * checks] * 3))  # mean 0.5, swing 0.2, never clipped
    means, swings = [], []
    for seed in range(80):
        changed = change_color(rgb, config, rng(seed))
        means += (changed.mean((1, 2)) / 0.5).tolist()
        swings += ((changed.amax((1, 2)) - changed.amin((1, 2))) / 0.2).tolist()
    for ratios in (means, swings):
        assert 0.8 - 1e-5 <= min(ratios) < 0.83
        assert 1.17 < max(ratios) <= 1.2 + 1e-5
    # Each channel and each of the two on its own.
    assert abs(np.corrcoef(means[::3], means[1::3])[0, 1]) < 0.4
    assert abs(np.corrcoef(means, swings)[0, 1]) < 0.3


def test_colors_stay_colors() -> None:
    extremes = torch.tensor([0.0, 1.0]).repeat(3, 8, 4)
    for seed in range(20):
        changed = change_color(extremes, AugmentationConfig(), rng(seed))
        assert changed.min() >= 0
        assert changed.max() <= 1


def test_same_generator_same_crop_other_generator_other_crop() -> None:
    first, again, other = (augment(picture(), places(), ALWAYS, CROP, rng(seed))[0] for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_randomness_plays_no_part() -> None:
    torch.manual_seed(0)
    first = augment(picture(), places(), ALWAYS, CROP, rng(4))[0]
    torch.manual_seed(1)
    assert torch.equal(first, augment(picture(), places(), ALWAYS, CROP, rng(4))[0])


def test_colors_change_as_often_as_the_probability_says() -> None:
    config = AugmentationConfig(scale=0.0, probability=0.7)
    whole = picture(4)
    changed = 0
    for seed in range(400):
        image, _ = augment(whole, places(4), config, 4, rng(seed))
        changed += not set(image[:3].flatten().tolist()) <= set(whole[:3].flatten().tolist())
    assert changed / 400 == pytest.approx(0.7, abs=0.09)  # four standard deviations


def test_dyes_change_as_scikit_image_separates_them() -> None:
    rgb = 0.3 + 0.4 * picture()[:3]
    changed = change_stain(rgb, 0.2, rng(4))
    before, after = (rgb2hed(image.permute(1, 2, 0).double().numpy()) for image in (rgb, changed))
    strength = rng(4).uniform(0.8, 1.2, 3)
    # scikit-image cuts negative amounts off, and light beyond white is.
    whole = (before > 0).all(2) & (changed < 1).all(0).numpy()
    assert whole.mean() > 0.05
    np.testing.assert_allclose(after[whole], before[whole] * strength, rtol=1e-3, atol=1e-5)


def test_dyes_are_left_alone_unless_asked_for() -> None:
    torch.testing.assert_close(
        change_stain(picture()[:3].clamp(min=0.01), 0.0, rng(0)), picture()[:3].clamp(min=0.01)
    )
    plain, dyed = (
        AugmentationConfig(brightness=0, contrast=0, stain=stain, probability=1) for stain in (0, 0.2)
    )
    assert torch.equal(
        *(augment(picture(), places(), config, CROP, rng(1))[0][3:] for config in (plain, dyed))
    )
    first, second = (augment(picture(), places(), config, CROP, rng(1))[0][:3] for config in (plain, dyed))
    assert 0.01 < (first - second).abs().mean() < 0.2
