"""What the networks are given, computed where they run; views are the ensembles' business."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softctm.inference.tissue_context import context_graph, image_graph
from softctm.ort.runtime import Runtime, Value


class PairInputs:
    """Makes a stage's inputs from images, as they were read, and tissue maps.

    Parameters
    ----------
    runtime : Runtime
    pooling : int
        Inputs are averages over blocks of so many pixels per side; see `Ensemble.pooling`.
    """

    def __init__(self, runtime: Runtime, pooling: int = 1) -> None:
        self._runtime = runtime
        self._image = runtime.helper(image_graph(pooling=pooling), "image")
        self._context = runtime.helper(context_graph(pooling), "tissue context")

    def image(self, image: NDArray[np.uint8]) -> Value:
        """(1024, 1024, 3) uint8 RGB → (1, 3, side, side) float32 in [0, 1], side = 1024 / pooling."""
        (planes,) = self._image(self._runtime.value(image))
        return planes

    def with_context(self, image: NDArray[np.uint8], tissue: Value, x: int = 0, y: int = 0) -> Value:
        """RGB of a cell patch, then its window of a tissue map, (1, 3 + C, side, side) float32.

        Parameters
        ----------
        image : (1024, 1024, 3) uint8
        tissue : (1, C, H, W) float32, on the device
            Tissue probabilities at 0.8 µm per pixel.
        x, y : int
            Top left corner of the 256 × 256 window that the cell patch covers.
        """
        corner = [self._runtime.value(np.array([start], np.int64)) for start in (x, y)]
        (planes,) = self._context(self._runtime.value(image), tissue, *corner)
        return planes
