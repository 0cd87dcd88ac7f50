"""A cell patch, the tissue patch around it, and where the one lies in the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PATCH_SIZE = 1024
"""Side of both patches, pixels."""

CELL_MPP = 0.2
"""Nominal resolution of the cell patch, µm per pixel."""

TISSUE_MPP = 0.8
"""Nominal resolution of the tissue patch, µm per pixel."""

ZOOM = 4
"""The tissue patch shows four times the cell patch's field of view."""

WINDOW_SIZE = PATCH_SIZE // ZOOM
"""Side of the cell patch's footprint in the tissue patch, pixels."""


@dataclass(frozen=True)
class TissueWindow:
    """Top left corner of the cell patch's 256 × 256 footprint, in tissue patch pixels, each 0 … 768."""

    x: int
    y: int

    def __post_init__(self) -> None:
        limit = PATCH_SIZE - WINDOW_SIZE
        if not (0 <= self.x <= limit and 0 <= self.y <= limit):
            raise ValueError(
                f"the cell patch's window at ({self.x}, {self.y}) leaves the tissue patch: "
                f"both must lie in 0 … {limit}"
            )


@dataclass(frozen=True, eq=False)
class CellTissuePair:
    """One input of the method.

    Attributes
    ----------
    cell : (1024, 1024, 3) uint8
        RGB at 0.2 µm per pixel.
    tissue : (1024, 1024, 3) uint8
        RGB at 0.8 µm per pixel, the cell patch inside it.
    window : TissueWindow
        Where the cell patch lies in the tissue patch.
    name : str
        How messages call the pair; the file stem or the position in a stack.

    Raises
    ------
    ValueError
        If an image has another shape or type.
    """

    cell: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    window: TissueWindow
    name: str = "pair"

    def __post_init__(self) -> None:
        for kind, image in (("cell", self.cell), ("tissue", self.tissue)):
            if image.shape != (PATCH_SIZE, PATCH_SIZE, 3) or image.dtype != np.uint8:
                raise ValueError(
                    f"{self.name}: the {kind} patch must be {PATCH_SIZE} × {PATCH_SIZE} × 3 uint8, "
                    f"not {' × '.join(map(str, image.shape))} {image.dtype}"
                )
