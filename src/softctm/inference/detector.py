"""SoftCTM, fast (Schoenpflug & Koelzer, arXiv 2312.12151): tissue, context, cells, points.

`softctm.inference.reference` is the same method in plain NumPy, to be read first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.choices import DeviceChoice
from softctm.inference.ensemble import Ensemble
from softctm.inference.faults import faults_named
from softctm.inference.pair_inputs import PairInputs
from softctm.inference.stage_times import timed
from softctm.inference.tta import first_views
from softctm.model.model import Model
from softctm.ort.runtime import Runtime, Value
from softctm.pair import CellTissuePair
from softctm.points import CellPoints, DetectedCells
from softctm.postprocessing.methods import open_decoder

STAGES = ("tissue", "context", "cells", "peaks")

SHARES = 2
"""Threads that share the views on a processor, each with its part of the cores: what is too short to be cut
in two then runs side by side. It takes memory for two passes (docs/performance.md)."""


def runtime_of_views(model: Model, device: DeviceChoice, views: int, callers: int) -> tuple[Runtime, int]:
    """What a model of pairs runs on, and from how many threads at once its detector may be called.

    One view leaves its threads to the callers; several share them, so that there is one caller.
    """
    shares = callers if views == 1 else min(views, SHARES)
    runtime = Runtime(device, len(model.networks), model.precision, shares)
    return runtime, runtime.callers if views == 1 else 1


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the detector knows about a pair.

    Attributes
    ----------
    points : CellPoints
    tissue_probability : (C, 1024, 1024) float32, or None where maps were not asked for, or there is none
        Classes of the tissue patch, in the order of the model's tissue head.
    cell_probability : (3, 1024, 1024) float32, or None where maps were not asked for
        None, background cell, tumor cell, in the cell patch.
    """

    points: CellPoints
    tissue_probability: NDArray[np.float32] | None = None
    cell_probability: NDArray[np.float32] | None = None


class Detector:
    """Finds the cells of pairs, or of the fields of a slide.

    Parameters
    ----------
    model : Model
        Of the task "cell-points"; its precision is what the networks compute in.
    device : "auto", "cpu" or "cuda"
        `auto` takes CUDA where it works, else the CPU.
    views : 1, 2, 4 or 8
        Views for test-time augmentation.
    callers : int
        From how many threads at once the detector is to be called, if it allows that.

    Attributes
    ----------
    callers : int
        From how many threads at once it may be called: as was asked for where there is one view; else one,
        whose views share the cores.
    device : "cpu" or "cuda"
        What the networks really run on.
    notice : str or None
        What a user should know about device and precision.
    views : int
    seconds : dict
        Time spent so far in each of `STAGES`.

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
        self._tissue = Ensemble(runtime, model.tissue, orientations)
        self._cells = Ensemble(runtime, model.cells, orientations)
        self._tissue_head, self._cell_head = model.tissue.head.name, model.cells.head.name
        # Networks trained without tissue take the cell patch alone; tissue is then computed on request only.
        self.sees_tissue = bool(model.cells.context)
        self._tissue_inputs = PairInputs(runtime, self._tissue.pooling)
        self._cell_inputs = PairInputs(runtime, self._cells.pooling)
        self._decode = open_decoder(model.postprocessing, runtime)
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def __call__(self, pair: CellTissuePair) -> CellPoints:
        """The cells of a pair; an empty `CellPoints` where there are none.

        Raises
        ------
        PairError
            If a network gives NaN or infinity for this pair.
        ModelError
            If a network's values are not what the model calls them; found on the first pair.
        DeviceError
            If memory runs out.
        """
        return self.predict(pair).points

    def predict(self, pair: CellTissuePair, *, maps: bool = False) -> Prediction:
        """The cells of a pair and, with `maps`, the probabilities that they were found in."""
        with faults_named(self.model, "pair", f"pair {pair.name}"):
            tissue = self._tissue_of(pair.tissue) if maps or self.sees_tissue else None
            cells = self._cells_of(pair.cell, tissue, pair.window.x, pair.window.y)
        points = self._points_in(cells).points
        if not maps or tissue is None:
            return Prediction(points)
        return Prediction(points, tissue.numpy()[0], cells.numpy()[0])

    def tissue_map(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Tissue probabilities of a field at 0.8 µm per pixel.

        Parameters
        ----------
        image : (1024, 1024, 3) uint8

        Returns
        -------
        (C, 1024, 1024) float32

        Raises
        ------
        As `__call__`.
        """
        with faults_named(self.model, "slide", "tissue field"):
            probability: NDArray[np.float32] = self._tissue_of(image).numpy()[0]
            return probability

    def find_cells(
        self, image: NDArray[np.uint8], context: NDArray[np.float32] | None = None
    ) -> DetectedCells:
        """The cells of a field at 0.2 µm per pixel.

        Parameters
        ----------
        image : (1024, 1024, 3) uint8
        context : (C, 256, 256) float32
            Tissue probabilities at 0.8 µm per pixel of what the field covers; None for models that do not see
            tissue.

        Raises
        ------
        As `__call__`.
        """
        with faults_named(self.model, "slide", "cell field"):
            tissue = None if context is None else self._runtime.value(context[None])
            cells = self._cells_of(image, tissue, 0, 0)
        return self._points_in(cells)

    @property
    def seconds_in_networks(self) -> float:
        """Time spent so far inside the networks themselves, of all callers together."""
        return self._tissue.seconds["networks"] + self._cells.seconds["networks"]

    def _tissue_of(self, image: NDArray[np.uint8]) -> Value:
        with timed(self.seconds, "tissue"):
            return self._tissue(self._tissue_inputs.image(image))[self._tissue_head]

    def _cells_of(self, image: NDArray[np.uint8], tissue: Value | None, x: int, y: int) -> Value:
        with timed(self.seconds, "context"):
            if tissue is not None and self.sees_tissue:
                planes = self._cell_inputs.with_context(image, tissue, x, y)
            else:
                planes = self._cell_inputs.image(image)
        with timed(self.seconds, "cells"):
            return self._cells(planes)[self._cell_head]

    def _points_in(self, cells: Value) -> DetectedCells:
        with timed(self.seconds, "peaks"):
            found: DetectedCells = self._decode({"cells": cells})
            return found
