"""Losses against numbers worked out by hand, PyTorch's own cross-entropy and a literal generalized Dice."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from softctm.training.losses import (
    generalized_dice,
    share_unknown_cells,
    soft_cross_entropy,
    tissue_cross_entropy,
    weighted_square_error,
)


def random_logits(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 2


def random_shares(*shape: int) -> Tensor:
    return random_logits(*shape).flip(0).softmax(1)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    return functional.one_hot(labels, classes).permute(0, 3, 1, 2).float()


def some_labels(classes: int) -> Tensor:
    return torch.randint(classes, (2, 6, 5), generator=torch.Generator().manual_seed(2))


def generalized_dice_literally(logits: Tensor, target: Tensor) -> float:
    """Sudre et al. 2017: 1 − 2 Σ_l w_l Σ_n r p / Σ_l w_l Σ_n (r + p), w_l = 1 / (Σ_n r)²."""
    scores, reference = logits.double().numpy(), target.double().numpy()
    share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    above = below = 0.0
    for label in range(scores.shape[1]):
        r, p = reference[:, label].ravel(), share[:, label].ravel()
        if r.sum() > 0:
            weight = 1 / r.sum() ** 2
            above += weight * (r * p).sum()
            below += weight * (r + p).sum()
    return 1 - 2 * above / below


@pytest.mark.parametrize("seed", range(3))
def test_generalized_dice_as_published(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 7, 6, generator=generator)
    labels = torch.randint(3, (2, 7, 6), generator=generator)
    for target in (one_hot(labels, 3), torch.randn(2, 3, 7, 6, generator=generator).softmax(1)):
        expected = generalized_dice_literally(logits, target)
        assert generalized_dice(logits, target).item() == pytest.approx(expected, abs=1e-5)


def test_generalized_dice_by_hand() -> None:
    # Four pixels, one of them a cell; the network is undecided everywhere. Weights 1/9 and 1:
    # 1 − 2 (1.5/9 + 0.5) / ((3 + 2)/9 + (1 + 2)) = 1 − 12/32.
    target = torch.tensor([[[[1.0, 1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 1.0]]]])
    assert generalized_dice(torch.zeros(1, 2, 1, 4), target).item() == pytest.approx(1 - 12 / 32)


def test_generalized_dice_is_0_for_a_perfect_answer_and_1_for_a_wholly_wrong_one() -> None:
    target = one_hot(some_labels(2), 2)
    assert generalized_dice(target * 60, target).item() == pytest.approx(0, abs=1e-5)
    assert generalized_dice((1 - target) * 60, target).item() == pytest.approx(1, abs=1e-5)


def test_class_absent_from_the_batch_takes_no_part_in_dice() -> None:
    target = one_hot(some_labels(2), 3)  # no pixel of the third class
    logits = random_logits(2, 3, 6, 5).requires_grad_()
    value = generalized_dice(logits, target)
    assert value.item() == pytest.approx(generalized_dice_literally(logits.detach(), target), abs=1e-5)
    value.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_square_error_by_hand() -> None:
    # One pixel, probabilities 1/3 each, target 0, 1/4, 3/4, weights 1, 2, 3.
    target = torch.tensor([0.0, 0.25, 0.75]).view(1, 3, 1, 1)
    expected = (1 / 3) ** 2 + 2 * (1 / 3 - 1 / 4) ** 2 + 3 * (3 / 4 - 1 / 3) ** 2
    found = weighted_square_error(torch.zeros(1, 3, 1, 1), target, torch.tensor([1.0, 2.0, 3.0]))
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_square_error_is_the_mean_over_pixels() -> None:
    logits, target = random_logits(2, 3, 4, 5), random_shares(2, 3, 4, 5)
    weights = torch.tensor([1.0, 2.0, 0.5])
    pixels = [
        weighted_square_error(
            logits[b, :, y, x].view(1, 3, 1, 1), target[b, :, y, x].view(1, 3, 1, 1), weights
        ).item()
        for b in range(2)
        for y in range(4)
        for x in range(5)
    ]
    assert weighted_square_error(logits, target, weights).item() == pytest.approx(np.mean(pixels), rel=1e-5)


def test_unweighted_square_error_is_that_of_pytorch_times_the_classes() -> None:
    logits, target = random_logits(2, 3, 4, 5), random_shares(2, 3, 4, 5)
    expected = 3 * functional.mse_loss(logits.softmax(1), target)
    assert weighted_square_error(logits, target, torch.ones(3)).item() == pytest.approx(expected.item())


def test_soft_cross_entropy_with_equal_weights_is_that_of_pytorch() -> None:
    logits, target = random_logits(2, 3, 4, 5), random_shares(2, 3, 4, 5)
    expected = functional.cross_entropy(logits, target).item()
    assert soft_cross_entropy(logits, target, torch.ones(3)).item() == pytest.approx(expected, rel=1e-5)
    assert soft_cross_entropy(logits, target, torch.full((3,), 7.0)).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_soft_cross_entropy_of_sure_targets_is_the_weighted_one_of_pytorch() -> None:
    labels, weights = some_labels(3), torch.tensor([1.0, 2.0, 4.0])
    logits = random_logits(2, 3, 6, 5)
    expected = functional.cross_entropy(logits, labels, weights).item()
    assert soft_cross_entropy(logits, one_hot(labels, 3), weights).item() == pytest.approx(expected, rel=1e-5)


def test_patches_that_hold_no_class_of_weight_cost_nothing() -> None:
    logits, background = random_logits(1, 3, 4, 4), one_hot(torch.zeros(1, 4, 4, dtype=torch.long), 3)
    logits.requires_grad_()
    value = soft_cross_entropy(logits, background, torch.tensor([0.0, 1.0, 1.0]))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_tissue_cross_entropy_is_the_mean_over_known_pixels() -> None:
    labels, logits = some_labels(3) - 1, random_logits(2, 2, 6, 5)
    expected = functional.cross_entropy(logits, labels, ignore_index=-1).item()
    assert (labels == -1).any()
    assert tissue_cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    undecided = tissue_cross_entropy(torch.zeros(2, 2, 6, 5), labels).item()
    assert undecided == pytest.approx(math.log(2), rel=1e-6)


def test_what_the_network_says_of_unknown_tissue_changes_nothing() -> None:
    labels, logits = some_labels(3) - 1, random_logits(2, 2, 6, 5)
    unknown = (labels == -1)[:, None].expand_as(logits)
    changed = torch.where(unknown, torch.full_like(logits, 50.0) * logits.sign(), logits)
    assert not torch.equal(changed, logits)
    assert tissue_cross_entropy(changed, labels).item() == tissue_cross_entropy(logits, labels).item()
    logits.requires_grad_()
    tissue_cross_entropy(logits, labels).backward()
    assert logits.grad is not None
    assert (logits.grad[unknown] == 0).all()
    assert (logits.grad[~unknown] != 0).any()


def test_tissue_of_which_nothing_is_known_costs_nothing() -> None:
    logits = random_logits(1, 2, 4, 4).requires_grad_()
    value = tissue_cross_entropy(logits, torch.full((1, 4, 4), -1))
    assert value.item() == 0
    value.backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_losses_are_computed_in_32_bits_whatever_the_network_gives() -> None:
    logits, target = random_logits(1, 3, 8, 8).bfloat16(), random_shares(1, 3, 8, 8)
    for value in (
        generalized_dice(logits, target),
        weighted_square_error(logits, target, torch.ones(3)),
        soft_cross_entropy(logits, target, torch.ones(3)),
        tissue_cross_entropy(logits[:, :2], torch.zeros(1, 8, 8, dtype=torch.int64)),
    ):
        assert value.dtype == torch.float32


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_cell_of_unknown_class_teaches_only_that_there_is_one(share: float) -> None:
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    target = torch.zeros(2, 4, 4, 4, dtype=torch.float64)
    target[:, 0], target[:, 3] = 1 - share, share
    shared = share_unknown_cells(logits, target)
    torch.testing.assert_close(shared.sum(1), torch.ones(2, 4, 4, dtype=torch.float64))
    (own,) = torch.autograd.grad(-(shared * logits.log_softmax(1)).sum(), logits)
    probability = logits.softmax(1)
    by_hand = -((1 - share) * probability[:, 0].log() + share * (probability[:, 1] + probability[:, 2]).log())
    (expected,) = torch.autograd.grad(by_hand.sum(), logits)
    torch.testing.assert_close(own, expected)


def test_targets_without_unknown_cells_pass_as_they_are() -> None:
    target = torch.rand(1, 3, 2, 2)
    assert share_unknown_cells(torch.zeros(1, 3, 2, 2), target) is target
