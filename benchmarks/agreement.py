"""How far two ways of finding the same cells agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from softctm.points import CellPoints

_WITHIN_PX = 1.0


@dataclass
class Agreement:
    """Counts over all pairs compared so far.

    Attributes
    ----------
    expected, found : int
        Cells of the first and of the second way.
    same_place : int
        Cells of the first way that the second has within 1 px.
    class_flips : int
        Those of them with the other class.
    largest_score_difference : float
        Among those with the same class.
    """

    expected: int = 0
    found: int = 0
    same_place: int = 0
    class_flips: int = 0
    largest_score_difference: float = 0.0

    def add(self, expected: CellPoints, found: CellPoints) -> None:
        """Compare one pair's points."""
        self.expected += len(expected)
        self.found += len(found)
        if not len(expected) or not len(found):
            return
        tree = cKDTree(np.stack([found.x, found.y], axis=1))
        distance, nearest = tree.query(np.stack([expected.x, expected.y], axis=1))
        near = distance <= _WITHIN_PX
        same_class = found.label[nearest] == expected.label
        difference = np.abs(found.score[nearest] - expected.score)[near & same_class]
        self.same_place += int(near.sum())
        self.class_flips += int((near & ~same_class).sum())
        self.largest_score_difference = max(self.largest_score_difference, float(difference.max(initial=0)))

    @property
    def share(self) -> float:
        """Cells that both have, in place and class, among all that either has; 1 where neither has any."""
        both = self.same_place - self.class_flips
        either = self.expected + self.found - both
        return both / either if either else 1.0
