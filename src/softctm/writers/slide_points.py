"""The cells of a slide as writers get them, some at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.points import CellClass

CLASS_NAMES = {CellClass.BACKGROUND: "Background cell", CellClass.TUMOR: "Tumor cell"}
"""As QuPath shows them."""


@dataclass(frozen=True)
class SlideCells:
    """Some cells of a slide.

    Attributes
    ----------
    x, y : (N,) float64
        Level-0 pixels; pixel centers lie at + 0.5.
    x_um, y_um : (N,) float64
        µm from the slide's top left corner.
    label : (N,) uint8
        `CellClass` numbers.
    probability, other_probability : (N,) float32
        Of the cell's class and of the other one.
    tissue_probability : (N,) float32
        Of cancer area at the point.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    x_um: NDArray[np.float64]
    y_um: NDArray[np.float64]
    label: NDArray[np.uint8]
    probability: NDArray[np.float32]
    other_probability: NDArray[np.float32]
    tissue_probability: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def is_tumor(self) -> NDArray[np.bool_]:
        """Which are tumor cells, (N,)."""
        tumor: NDArray[np.bool_] = self.label == CellClass.TUMOR
        return tumor


Add = Callable[[SlideCells], None]
"""Takes the next cells of a slide."""
