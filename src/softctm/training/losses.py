"""Losses: generalized Dice for circle and hard targets, square error or cross-entropy for soft ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from softctm.training.config import TargetConfig

LossFunction = Callable[[Any, Any], Tensor]
"""(what the network returns, targets) → a scalar."""


def generalized_dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 − the generalized Dice overlap (Sudre et al. 2017, arXiv 1707.03237, section 2.2).

    Each class is weighted by the inverse square of its volume in the batch, so that the few pixels of
    cells count as much as the many of background. A class absent from the batch takes no part.

    Parameters
    ----------
    logits, target : (B, C, H, W)
        Scores before softmax, and class shares in [0, 1] that sum to 1 over C.
    """
    probability = logits.float().softmax(1)
    volume = target.sum((0, 2, 3))
    weight = torch.where(volume > 0, 1 / volume.clamp(min=1).square(), torch.zeros_like(volume))
    overlap = (weight * (probability * target).sum((0, 2, 3))).sum()
    total = (weight * (probability + target).sum((0, 2, 3))).sum()
    return 1 - 2 * overlap / total.clamp(min=1e-12)


def weighted_square_error(logits: Tensor, target: Tensor, class_weights: Tensor) -> Tensor:
    """Mean over pixels of the class-weighted squared difference between softmax and target.

    Parameters
    ----------
    logits, target : (B, C, H, W)
        Scores before softmax, and soft targets in [0, 1] that sum to 1 over C.
    class_weights : (C,)
        Weight of each class's squared error.
    """
    squared = (logits.float().softmax(1) - target).square()
    return (squared * class_weights.view(1, -1, 1, 1)).sum(1).mean()


def soft_cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor) -> Tensor:
    """Mean over pixels of −Σ w·t·log p, divided by the mean weight, for soft targets.

    Parameters are those of `weighted_square_error`.
    """
    weighted = target * class_weights.view(1, -1, 1, 1)
    return -(weighted * logits.float().log_softmax(1)).sum() / weighted.sum().clamp(min=1e-6)


def share_unknown_cells(logits: Tensor, target: Tensor) -> Tensor:
    """Divide cells of unknown class among the classes as the network does: a target for any of the losses.

    The gradient of the cross-entropy with it is that of −log(P(background cell) + P(tumor cell)) where the
    class is unknown: the network learns that there is a cell, and nothing about which.

    Parameters
    ----------
    logits : (B, C, H, W)
    target : (B, C, H, W) or (B, C + 1, H, W)
        Shares in [0, 1] that sum to 1; the last of C + 1 is that of cells of unknown class.

    Returns
    -------
    (B, C, H, W)
    """
    classes = logits.shape[1]
    if target.shape[1] == classes:
        return target
    shares = logits[:, 1:].detach().float().softmax(1).to(target.dtype) * target[:, classes:]
    return torch.cat([target[:, :1], target[:, 1:classes] + shares], 1)


def tissue_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the known pixels; 0 where none is known.

    Parameters
    ----------
    logits : (B, 2, H, W)
    labels : (B, H, W) int64
        0 background, 1 cancer area, −1 unknown (ignored).
    """
    total = functional.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum")
    return total / (labels >= 0).sum().clamp(min=1)


def cell_loss(target: TargetConfig) -> LossFunction:
    """The loss that a target is trained with: generalized Dice, unless the target is soft."""
    weights = torch.tensor(target.class_weights)
    chosen = weighted_square_error if target.loss == "square-error" else soft_cross_entropy

    def loss(logits: Tensor, shares: Tensor) -> Tensor:
        shares = share_unknown_cells(logits, shares)
        if target.loss == "generalized-dice":
            return generalized_dice(logits, shares)
        return chosen(logits, shares, weights.to(logits.device))

    return loss
