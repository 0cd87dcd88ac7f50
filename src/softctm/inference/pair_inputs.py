"""What the networks are given for a pair, computed where they run."""

from __future__ import annotations

import numpy as np

from softctm.inference.tissue_context import context_graph, image_graph
from softctm.ort.runtime import Runtime, Value
from softctm.pair import CellTissuePair


class PairInputs:
    """Makes the networks' inputs of a pair, as it was read; views are the ensembles' business."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._image = runtime.helper(image_graph(), "image")
        self._context = runtime.helper(context_graph(), "tissue context")

    def tissue(self, pair: CellTissuePair) -> Value:
        """RGB of the tissue patch in [0, 1], (1, 3, 1024, 1024) float32."""
        (image,) = self._image(self._runtime.value(pair.tissue))
        return image

    def cell_alone(self, pair: CellTissuePair) -> Value:
        """RGB of the cell patch in [0, 1], (1, 3, 1024, 1024) float32."""
        (image,) = self._image(self._runtime.value(pair.cell))
        return image

    def cell(self, pair: CellTissuePair, tissue: Value) -> Value:
        """RGB of the cell patch, then its window of the tissue map, (1, 3 + C, 1024, 1024) float32."""
        x, y = (np.array([start], np.int64) for start in (pair.window.x, pair.window.y))
        window = [self._runtime.value(corner) for corner in (x, y)]
        (image,) = self._context(self._runtime.value(pair.cell), tissue, *window)
        return image
