"""Cells as points: position, class and score, one array each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class CellClass(IntEnum):
    """The challenge's two classes, with the numbers that its files use."""

    BACKGROUND = 1
    TUMOR = 2

    @property
    def short(self) -> str:
        """The challenge's abbreviation: BC (background cell) or TC (tumor cell)."""
        return "BC" if self is CellClass.BACKGROUND else "TC"

    @property
    def color(self) -> tuple[int, int, int]:
        """RGB in which the challenge draws the class: BC yellow, TC blue."""
        return (255, 225, 0) if self is CellClass.BACKGROUND else (0, 120, 255)


@dataclass(frozen=True)
class CellPoints:
    """The cells of one patch.

    Attributes
    ----------
    x, y : (N,) int32
        Column and row in the cell patch, pixels of 0.2 µm, 0 … 1023, origin top left.
    label : (N,) uint8
        `CellClass` numbers: 1 background cell, 2 tumor cell.
    score : (N,) float32
        Probability of that class, 0 … 1.
    """

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    label: NDArray[np.uint8]
    score: NDArray[np.float32]

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.y), len(self.label), len(self.score)}
        if len(lengths) != 1:
            raise ValueError(f"x, y, label and score must be equally long, not {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.x)

    def count(self, cell_class: CellClass) -> int:
        """Number of cells of one class."""
        return int(np.count_nonzero(self.label == cell_class))

    def where(self, chosen: NDArray[np.bool_]) -> CellPoints:
        """The cells that the mask (N,) chooses, in the same order."""
        return CellPoints(self.x[chosen], self.y[chosen], self.label[chosen], self.score[chosen])

    @classmethod
    def empty(cls) -> CellPoints:
        """No cells: a valid answer for glass and for stroma without nuclei."""
        none = np.zeros(0)
        return cls(
            none.astype(np.int32), none.astype(np.int32), none.astype(np.uint8), none.astype(np.float32)
        )


@dataclass(frozen=True)
class DetectedCells:
    """Cells with what is known of each where it was found.

    Attributes
    ----------
    points : CellPoints
        N cells.
    probability : (N, 3) float32
        None, background cell, tumor cell, at the point.
    height : (N,) float32
        How high the foreground stands there, by which of two cells that are too close the better is kept: the
        blurred foreground for peaks, the mean foreground of the object for the watershed.
    """

    points: CellPoints
    probability: NDArray[np.float32]
    height: NDArray[np.float32]

    @classmethod
    def empty(cls) -> DetectedCells:
        """No cells."""
        return cls(CellPoints.empty(), np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
