"""SoftCTM in plain NumPy and ONNX Runtime: read this first. It is the truth for the fast detector.

Pathologists zoom out to see the tissue, then in to name the cell; so does the method (Schoenpflug & Koelzer,
arXiv 2312.12151). One view after the other, batches of one, 32 bits, nothing done to make it fast:

    tissue patch -> tissue networks x 8 views -> class probabilities
                                                   | crop the cell patch's window, enlarge x 4 (bicubic)
    cell patch   ----------------------------------+-> cell networks x 8 views -> none, background, tumor
                                                                                -> blur, peaks -> cells
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max

from softctm.model.model import Model, Stage
from softctm.pair import WINDOW_SIZE, ZOOM, CellTissuePair
from softctm.points import CellPoints
from softctm.postprocessing.peaks import Peaks

Map = NDArray[np.float32]
"""(channels, height, width)."""


class ReferenceDetector:
    """The whole method, for models that find their cells by peaks.

    Parameters
    ----------
    model : Model
    views : 1, 2, 4 or 8
    providers : list
        ONNX Runtime's execution providers; the CPU by default.

    Attributes
    ----------
    maps : (Map, Map)
        Tissue and cell probabilities of the last pair.
    """

    def __init__(self, model: Model, *, views: int = 8, providers: list[Any] | None = None) -> None:
        if not isinstance(model.postprocessing, Peaks) or "tissue" not in model.stages:
            raise ValueError(
                "the reference takes models of a tissue and a cell stage, and finds cells by peaks"
            )
        self.model, self.rule, self.views = model, model.postprocessing, views
        self.sessions = {
            network.path: onnxruntime.InferenceSession(
                network.read(), providers=providers or ["CPUExecutionProvider"]
            )
            for network in model.networks
        }
        self.maps: tuple[Map, Map] = (np.zeros((0, 0, 0), np.float32),) * 2

    def __call__(self, pair: CellTissuePair) -> CellPoints:
        """The cells of a pair."""
        tissue = self.mean_over_networks_and_views(self.model.tissue, scaled(pair.tissue))
        image = scaled(pair.cell)
        if self.model.cells.context:
            x, y = pair.window.x, pair.window.y
            window = tissue[:, y : y + WINDOW_SIZE, x : x + WINDOW_SIZE]
            image = np.concatenate([image, enlarged(window, ZOOM)])
        cells = self.mean_over_networks_and_views(self.model.cells, image)
        self.maps = tissue, cells
        return self.points_in(cells)

    def mean_over_networks_and_views(self, stage: Stage, image: Map) -> Map:
        """Class probabilities: each prediction is turned back before the mean is taken."""
        total = np.zeros(1, np.float32)
        for network in stage.networks:
            for flip, quarter_turns in VIEWS[: self.views]:
                view = np.rot90(image[..., ::-1] if flip else image, -quarter_turns, axes=(1, 2))
                output = self.run(network.path, np.ascontiguousarray(view)[None])[0]
                if stage.head.activation == "logits":
                    output = softmax(output)
                output = np.rot90(output, quarter_turns, axes=(1, 2))
                total = total + (output[..., ::-1] if flip else output)
        return total / np.float32(len(stage.networks) * self.views)

    def points_in(self, cells: Map) -> CellPoints:
        """The cells in a map of none, background cell, tumor cell."""
        return peaks(cells, self.rule)

    def run(self, path: Any, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """One network's output for a batch (1, channels, size, size)."""
        session = self.sessions[path]
        (output,) = session.run(None, {session.get_inputs()[0].name: batch})
        return np.asarray(output, np.float32)


VIEWS = tuple((flip, turns) for pair in ((0, 2), (1, 3)) for turns in pair for flip in (False, True))
"""(flipped left-right first?, quarter turns clockwise), in the order in which fewer views are taken."""


def scaled(image: NDArray[np.uint8]) -> Map:
    """RGB (H, W, 3) uint8 → (3, H, W) float32 in [0, 1]."""
    return image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


def softmax(logits: Map) -> Map:
    """Logits → probabilities over the channels."""
    powers = np.exp(logits - logits.max(axis=0))
    probabilities: Map = powers / powers.sum(axis=0)
    return probabilities


def enlarged(image: Map, zoom: int) -> Map:
    """Bicubic interpolation, a = −0.75, half-pixel centers, repeated borders; may overshoot [0, 1]."""
    length, a = image.shape[-1], -0.75
    weights = np.zeros((length * zoom, length))
    for target in range(length * zoom):
        source = (target + 0.5) / zoom - 0.5
        for sample in range(math.floor(source) - 1, math.floor(source) + 3):
            d = abs(source - sample)
            near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
            weights[target, min(max(sample, 0), length - 1)] += near if d <= 1 else far
    result: Map = (weights @ image @ weights.T).astype(np.float32)
    return result


def peaks(cells: Map, rule: Peaks) -> CellPoints:
    """Maxima of the blurred foreground where a cell is likelier than none; the likelier class names them."""
    none, background, tumor = cells
    radius = math.ceil(4 * rule.sigma_px)
    foreground = ndimage.gaussian_filter(1 - none, rule.sigma_px, mode="mirror", radius=radius)
    found = peak_local_max(
        foreground, min_distance=rule.distance_px, threshold_abs=rule.threshold or 0.0, exclude_border=False
    )
    rows, columns = found[np.lexsort(found.T[::-1])].T
    if rule.threshold is None:
        is_cell = none[rows, columns] < np.maximum(background, tumor)[rows, columns]
        rows, columns = rows[is_cell], columns[is_cell]
    label = np.where(tumor > background, 2, 1)[rows, columns]
    score = np.clip(cells[label, rows, columns], 0, 1)
    return CellPoints(columns.astype(np.int32), rows.astype(np.int32), label.astype(np.uint8), score)
