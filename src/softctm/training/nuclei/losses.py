"""CellViT's kinds of loss (arXiv 2306.15350): NP, HV, NT and tissue branch, each a weighted sum."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from softctm.networks.ranges import NOT_NEGATIVE, SHARE, check_ranges

ALPHA, BETA, GAMMA = 0.7, 0.3, 4 / 3
"""Of the focal Tversky loss (Abraham & Khan, arXiv 1810.07842): weight of FN, weight of FP, focus."""


@dataclass(frozen=True)
class LossWeights:
    """One weight per term; the defaults are modeled on CellViT's, not checked against its paper's text.

    `nt_balance` says how much the cross-entropy of types favors rare ones: each type's pixels weigh as its
    share of all pixels to the power of minus this.
    """

    np_focal_tversky: float = 1.0
    np_dice: float = 1.0
    np_cross_entropy: float = 0.0
    hv_square_error: float = 2.5
    hv_gradient_error: float = 8.0
    nt_focal_tversky: float = 0.5
    nt_dice: float = 0.2
    nt_cross_entropy: float = 0.5
    tissue_cross_entropy: float = 0.1
    nt_balance: float = 0.0

    def __post_init__(self) -> None:
        weights = [field.name for field in fields(self) if field.name != "nt_balance"]
        check_ranges(self, nt_balance=SHARE, **dict.fromkeys(weights, NOT_NEGATIVE))


def nuclei_loss(
    maps: Tensor,
    target: Tensor,
    weights: LossWeights,
    tissue: Tensor | None = None,
    type_weights: Tensor | None = None,
) -> Tensor:
    """The sum over all branches.

    Parameters
    ----------
    maps : (B, 4 + T, H, W)
        NP logits, HV, NT logits, as the networks stack them.
    target : (B, 5, H, W) float32
        As `nuclei_target` makes it. Pixels of unknown type have no part in the NT loss.
    weights : LossWeights
    tissue : (B, C), optional
        Tissue logits; images of unknown tissue have no part in their loss.
    type_weights : (T,), optional
        What a pixel of each type weighs in the cross-entropy; see `softctm.training.nuclei.sampling`.

    Returns
    -------
    scalar Tensor
    """
    maps = maps.float()
    nucleus = target[:, 0]
    everywhere = torch.ones_like(nucleus)
    overlap, cross_entropy = _segmentation_terms(maps[:, :2], nucleus.long(), everywhere)
    total = weights.np_focal_tversky * overlap[0] + weights.np_dice * overlap[1]
    total = total + weights.np_cross_entropy * cross_entropy
    hv, true_hv = maps[:, 2:4], target[:, 1:3]
    total = total + weights.hv_square_error * functional.mse_loss(hv, true_hv)
    total = total + weights.hv_gradient_error * gradient_error(hv, true_hv, nucleus)
    known = target[:, 3] >= 0
    kind = target[:, 3].long().clamp(min=0)
    overlap, cross_entropy = _segmentation_terms(maps[:, 4:], kind, known.float(), type_weights)
    total = total + weights.nt_focal_tversky * overlap[0] + weights.nt_dice * overlap[1]
    total = total + weights.nt_cross_entropy * cross_entropy
    if tissue is not None:
        label = target[:, 4, 0, 0].long()
        losses = functional.cross_entropy(tissue.float(), label.clamp(min=0), reduction="none")
        total = total + weights.tissue_cross_entropy * (losses * (label >= 0)).mean()
    return total


def _segmentation_terms(
    logits: Tensor, labels: Tensor, mask: Tensor, class_weights: Tensor | None = None
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Focal Tversky and Dice loss (means over the classes), and cross-entropy, over the mask's pixels.

    Of overlap, classes that the batch does not hold have no part: it is 0 whatever a network says of them, so
    that it would teach never to name what is rare.
    """
    log_probability = logits.log_softmax(1)
    truth = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1) * mask[:, None]
    held = truth.sum((0, 2, 3)) > 0
    probability = (log_probability.exp() * mask[:, None])[:, held]
    nothing = logits.new_zeros(())
    overlap = (
        (focal_tversky(probability, truth[:, held]), dice(probability, truth[:, held]))
        if held.any()
        else (nothing, nothing)
    )
    if class_weights is not None:
        truth = truth * class_weights.to(truth)[:, None, None]
    cross_entropy = -(log_probability * truth).sum() / truth.sum().clamp(min=1)
    return overlap, cross_entropy


def focal_tversky(probability: Tensor, truth: Tensor) -> Tensor:
    """(1 − TP / (TP + α FN + β FP)) ^ (1 / γ), pooled over the batch, mean over classes."""
    hit = (probability * truth).sum((0, 2, 3))
    missed = truth.sum((0, 2, 3)) - hit
    false = probability.sum((0, 2, 3)) - hit
    index = (hit + 1) / (hit + ALPHA * missed + BETA * false + 1)
    # Away from 0, where the root's slope has no bound.
    return (1 - index).clamp(min=1e-6).pow(1 / GAMMA).mean()


def dice(probability: Tensor, truth: Tensor) -> Tensor:
    """1 − 2 TP / (2 TP + FN + FP), pooled over the batch, mean over classes."""
    hit = (probability * truth).sum((0, 2, 3))
    both = probability.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    return (1 - (2 * hit + 1) / (both + 1)).mean()


def gradient_error(hv: Tensor, true_hv: Tensor, nucleus: Tensor) -> Tensor:
    """Mean square error of H's horizontal and V's vertical gradient within nuclei.

    HoVer-Net's equation 3, but the mean of both directions where the paper adds them: half of its value.
    """
    difference = hv - true_hv
    kernel = _gradient_kernel().to(hv)
    horizontal = functional.conv2d(difference[:, :1], kernel, padding=2)
    vertical = functional.conv2d(difference[:, 1:], kernel.transpose(2, 3), padding=2)
    square = (horizontal.square() + vertical.square())[:, 0] * nucleus
    return square.sum() / (2 * nucleus.sum() + 1e-8)


def _gradient_kernel() -> Tensor:
    """5 × 5: the distance to the right over the square of the distance."""
    reach = torch.arange(-2.0, 3.0)
    down, right = torch.meshgrid(reach, reach, indexing="ij")
    return (right / (down.square() + right.square()).clamp(min=1))[None, None]
