"""Of things that cannot both be, which stay: the better one first, and no one goes but for one that stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def losers(pairs: NDArray[np.integer], rank: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which of N things go.

    From the first in rank to the last, each that stays removes its rivals. So of two rivals never both stay,
    and none goes but for one that stays.

    Parameters
    ----------
    pairs : (K, 2) integer
        Rivals, by number from 0.
    rank : (N,) integer
        Place of each in the order; all differ.

    Returns
    -------
    (N,) bool
    """
    gone = np.zeros(len(rank), np.bool_)
    # Each pair the better one first, pairs by their better one: it is settled when its turn comes.
    swapped = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    ordered = np.where(swapped[:, None], pairs[:, ::-1], pairs)
    for better, worse in ordered[np.argsort(rank[ordered[:, 0]], kind="stable")].tolist():
        if not gone[better]:
            gone[worse] = True
    return gone
