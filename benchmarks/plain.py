"""The method the plain way, to measure the detector against: one view at a time, each result fetched."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max

from softctm.inference.tissue_context import upsampling_matrix
from softctm.inference.tta import VIEWS, View
from softctm.model.loading import Model, Stage
from softctm.pair import WINDOW_SIZE, ZOOM, CellTissuePair
from softctm.points import CellPoints
from softctm.postprocessing.peaks import Peaks

Map = NDArray[np.float32]


class PlainDetector:
    """The method and interface of `softctm.inference.detector.Detector`, with nothing done to make it fast.

    Batches of one, 32-bit, ONNX Runtime's own settings, every pass's result in NumPy, peaks searched for by
    scikit-image over the whole map before the class is looked at. On CUDA, TF32's shorter mantissa only where
    `tf32` asks for it.
    """

    def __init__(self, model: Model, *, device: str = "cpu", views: int = 8, tf32: bool = False) -> None:
        if not isinstance(model.postprocessing, Peaks):
            raise ValueError("the plain way knows peaks only")
        providers: list[Any] = ["CPUExecutionProvider"]
        if device == "cuda":
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": str(int(tf32))}))
        self._model, self._rule, self._views = model, model.postprocessing, VIEWS[:views]
        self._tissue, self._cells = (
            [onnxruntime.InferenceSession(network.read(), providers=providers) for network in stage.networks]
            for stage in (model.tissue, model.cell)
        )
        self.seconds = {"all": 0.0, "peaks": 0.0}
        self.seconds_in_networks = 0.0
        self.maps: tuple[Map, Map] = (np.zeros(0, np.float32), np.zeros(0, np.float32))
        """Tissue and cell probabilities of the last pair."""

    def __call__(self, pair: CellTissuePair) -> CellPoints:
        """The cells of a pair."""
        start = time.perf_counter()
        tissue = self._mean(self._tissue, self._model.tissue, _planes(pair.tissue))
        x, y = pair.window.x, pair.window.y
        weights = upsampling_matrix(WINDOW_SIZE, ZOOM)
        context = weights @ tissue[:, y : y + WINDOW_SIZE, x : x + WINDOW_SIZE] @ weights.T
        cells = self._mean(self._cells, self._model.cell, np.concatenate([_planes(pair.cell), context]))
        self.maps = tissue, cells
        search = time.perf_counter()
        points = self._peaks(cells)
        end = time.perf_counter()
        self.seconds["all"] += end - start
        self.seconds["peaks"] += end - search
        return points

    def _mean(self, sessions: list[Any], stage: Stage, image: Map) -> Map:
        total = np.zeros(1, np.float32)
        for session in sessions:
            for view in self._views:
                start = time.perf_counter()
                (output,) = session.run(None, {session.get_inputs()[0].name: _turn(image, view)[None]})
                self.seconds_in_networks += time.perf_counter() - start
                if stage.output == "logits":
                    powers = np.exp(output - output.max(axis=1, keepdims=True))
                    output = powers / powers.sum(axis=1, keepdims=True)
                total = total + _turn_back(output[0], view)
        mean: Map = total / np.float32(len(sessions) * len(self._views))
        return mean

    def _peaks(self, cells: Map) -> CellPoints:
        none, background, tumor = cells
        smooth = ndimage.gaussian_filter(1 - none, self._rule.sigma_px, mode="mirror", truncate=4)
        found = peak_local_max(
            smooth,
            min_distance=self._rule.distance_px,
            threshold_abs=self._rule.threshold or 0.0,
            exclude_border=False,
        )
        rows, columns = found[np.lexsort(found.T[::-1])].T
        if self._rule.threshold is None:
            keep = none[rows, columns] < np.maximum(background, tumor)[rows, columns]
            rows, columns = rows[keep], columns[keep]
        label = np.where(tumor > background, 2, 1)[rows, columns]
        score = np.clip(cells[label, rows, columns], 0, 1)
        return CellPoints(columns.astype(np.int32), rows.astype(np.int32), label.astype(np.uint8), score)


def _planes(image: NDArray[np.uint8]) -> Map:
    return image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


def _turn(image: Map, view: View) -> Map:
    flipped = image[..., ::-1] if view.flipped else image
    return np.ascontiguousarray(np.rot90(flipped, -view.quarter_turns, axes=(1, 2)))


def _turn_back(image: Map, view: View) -> Map:
    back = np.rot90(image, view.quarter_turns, axes=(1, 2))
    return back[..., ::-1] if view.flipped else back
