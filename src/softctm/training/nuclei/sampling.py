"""What favors rare tissues and types: oversampling (arXiv 2306.15350, section 4.4), weights of types."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from softctm.training.nuclei.data import TrainingImage


def oversampling_weights(
    present: NDArray[np.bool_], tissue: NDArray[np.integer], strength: float
) -> NDArray[np.float64]:
    """Probability of drawing each patch.

    Parameters
    ----------
    present : (N, types) bool
        Which types a patch holds, background left out.
    tissue : (N,) int
        Each patch's tissue.
    strength : float
        γ of the paper, 0 (all alike) … 1 (fully balanced).

    Returns
    -------
    (N,) float64
        Sums to 1.
    """
    number = len(tissue)
    _, label, count = np.unique(tissue, return_inverse=True, return_counts=True)
    by_tissue = number / (strength * count[label] + (1 - strength) * number)
    of_type = present.sum(0)
    total = of_type.sum()
    common = strength * of_type + (1 - strength) * total
    share = np.divide(total, common, out=np.zeros(len(of_type)), where=of_type > 0)
    by_type = (1 - strength) + strength * (present * share).sum(1)
    weights = by_tissue / by_tissue.max() + by_type / max(by_type.max(), 1e-12)
    return np.asarray(weights / weights.sum(), np.float64)


def type_weights(images: Iterable[TrainingImage], types: int, strength: float) -> NDArray[np.float32]:
    """What a pixel of each type weighs, so that rare types are not drowned by common ones.

    Parameters
    ----------
    images : iterable of TrainingImage
        Those without types have no part.
    types : int
        Number of types, background included.
    strength : float
        0 (all alike) … 1 (every type has the same weight in all).

    Returns
    -------
    (types,) float32
        Share of all pixels to the power of −`strength`; the mean over all pixels is 1. 1 for types that no
        image holds.
    """
    pixels = np.zeros(types)
    for image in images:
        kind = image.type_of[image.instances]
        if (kind >= 0).all():
            pixels += np.bincount(kind.ravel(), minlength=types)
    share = pixels / max(pixels.sum(), 1)
    weights = np.where(share > 0, np.maximum(share, 1e-12) ** -strength, 0)
    weights /= max((share * weights).sum(), 1e-12)
    return np.where(share > 0, weights, 1).astype(np.float32)
