"""The reference implementation with a clock in it: what the detector is measured against."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.inference.reference import Map, ReferenceDetector
from softctm.model import Model
from softctm.pair import CellTissuePair
from softctm.points import CellPoints


class Baseline(ReferenceDetector):
    """`ReferenceDetector` with ONNX Runtime's own settings, timed.

    On CUDA, TF32's shorter mantissa is used only where `tf32` asks for it.
    """

    def __init__(self, model: Model, *, device: str = "cpu", views: int = 8, tf32: bool = False) -> None:
        providers: list[Any] = ["CPUExecutionProvider"]
        if device == "cuda":
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": str(int(tf32))}))
        super().__init__(model, views=views, providers=providers)
        self.seconds = {"all": 0.0, "peaks": 0.0}
        self.seconds_in_networks = 0.0

    def __call__(self, pair: CellTissuePair) -> CellPoints:
        """The cells of a pair."""
        start = time.perf_counter()
        points = super().__call__(pair)
        self.seconds["all"] += time.perf_counter() - start
        return points

    def run(self, path: Any, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """One network's output, timed."""
        start = time.perf_counter()
        output = super().run(path, batch)
        self.seconds_in_networks += time.perf_counter() - start
        return output

    def points_in(self, cells: Map) -> CellPoints:
        """The cells in a map, timed."""
        start = time.perf_counter()
        points = super().points_in(cells)
        self.seconds["peaks"] += time.perf_counter() - start
        return points
