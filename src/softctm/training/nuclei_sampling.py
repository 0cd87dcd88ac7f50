"""Oversampling of rare tissues and rare types (arXiv 2306.15350, section 4.4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    share = total / (strength * of_type + (1 - strength) * total) if total else np.zeros(present.shape[1])
    by_type = (1 - strength) + strength * (present * share).sum(1)
    weights = by_tissue / by_tissue.max() + by_type / max(by_type.max(), 1e-12)
    return np.asarray(weights / weights.sum(), np.float64)
