"""Models whose networks see both patches of a pair at once: one stage, and no tissue map in between."""

from __future__ import annotations

import numpy as np

from softctm.choices import DeviceChoice
from softctm.inference.detector import Prediction, runtime_of_views
from softctm.inference.ensemble import Ensemble
from softctm.inference.faults import faults_named
from softctm.inference.stage_times import timed
from softctm.inference.tissue_context import pair_graph
from softctm.inference.tta import first_views
from softctm.model.model import Model
from softctm.ort.runtime import Value
from softctm.pair import CellTissuePair
from softctm.points import CellPoints, DetectedCells
from softctm.postprocessing.methods import open_decoder

STAGES = ("inputs", "networks", "peaks")


class JointDetector:
    """Finds the cells of pairs.

    The pair is one array of seven planes, the last of which shows the window: a view turns them all.

    Parameters
    ----------
    model : Model
        Of the task "joint-cell-points".
    device : "auto", "cpu" or "cuda"
    views : 1, 2, 4 or 8
    callers : int
        As of `softctm.inference.detector.Detector`.

    Attributes
    ----------
    callers, device, notice, views, seconds
        As those of `softctm.inference.detector.Detector`; seconds by the `STAGES` here.

    Raises
    ------
    ModelError, DeviceError, UsageError
    """

    def __init__(
        self, model: Model, *, device: DeviceChoice = "auto", views: int = 8, callers: int = 1
    ) -> None:
        self.model, self.views = model, views
        orientations = first_views(views)
        runtime, self.callers = runtime_of_views(model, device, views, callers)
        self.device, self.notice = runtime.device, runtime.notice
        self._runtime = runtime
        self._networks = Ensemble(runtime, model.cells, orientations)
        self._planes = runtime.helper(pair_graph(self._networks.pooling), "pair")
        self._decode = open_decoder(model.postprocessing, runtime)
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def __call__(self, pair: CellTissuePair) -> CellPoints:
        """The cells of a pair; errors as those of `softctm.inference.detector.Detector`."""
        return self.predict(pair).points

    def predict(self, pair: CellTissuePair, *, maps: bool = False) -> Prediction:
        """The cells of a pair and, with `maps`, the probabilities that the networks give.

        The tissue's are None where the model learned no tissue map.
        """
        with timed(self.seconds, "inputs"):
            planes = self._inputs(pair)
        with faults_named(self.model, "pair", f"pair {pair.name}"), timed(self.seconds, "networks"):
            found = self._networks(planes)
        with timed(self.seconds, "peaks"):
            cells: DetectedCells = self._decode({"cells": found["cells"]})
        if not maps:
            return Prediction(cells.points)
        tissue = found["tissue"].numpy()[0] if "tissue" in found else None
        return Prediction(cells.points, tissue, found["cells"].numpy()[0])

    def _inputs(self, pair: CellTissuePair) -> Value:
        x, y = (np.array([start], np.int64) for start in (pair.window.x, pair.window.y))
        value = self._runtime.value
        (planes,) = self._planes(value(pair.cell), value(pair.tissue), value(x), value(y))
        return planes
