"""Losses: generalized Dice for circle and hard targets, square error or cross-entropy for soft ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
    return -(weighted * logits.float().log_softmax(1)).sum() / weighted.sum()


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
