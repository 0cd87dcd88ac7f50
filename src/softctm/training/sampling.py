"""Which patches a step sees: half of them evenly, half so that both classes weigh the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def balanced_weights(
    counts: NDArray[np.floating], importance: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """Probability of drawing each patch.

    Half of the probability is spread evenly, so that patches without cells are seen; of the other half,
    each class gets an equal part, spread over the patches by how much of that class they hold.

    Parameters
    ----------
    counts : (N, classes)
        Cells (or pixels) of each class a patch.
    importance : (N,), optional
        How often each patch is drawn relative to what it would be otherwise; at least one is above 0.

    Returns
    -------
    (N,) float64
        Sums to 1.
    """
    number, classes = counts.shape
    total = counts.sum(0)
    even = np.full(number, 1 / number)
    by_class = [counts[:, c] / total[c] if total[c] > 0 else even for c in range(classes)]
    weights: NDArray[np.float64] = 0.5 * even + 0.5 * np.mean(by_class, axis=0)
    if importance is not None:
        weights *= importance
        weights /= weights.sum()
    return weights


def draw(weights: NDArray[np.float64], batch: int, seed: int, step: int) -> NDArray[np.int64]:
    """The patches of one step: a function of seed and step alone, so that a resumed run draws the same."""
    rng = np.random.default_rng([seed, step, 0])
    # Systematic sampling within the batch keeps one patch from being drawn several times by chance.
    positions = (rng.random() + np.arange(batch)) / batch
    order = rng.permutation(len(weights))
    return order[np.minimum(np.searchsorted(np.cumsum(weights[order]), positions), len(weights) - 1)]
