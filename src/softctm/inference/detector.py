"""The method on one page (Schoenpflug & Koelzer, arXiv 2312.12151): tissue, context, cells, points."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.choices import DeviceWish, Precision
from softctm.errors import ModelError, PairError
from softctm.inference.ensemble import Ensemble, NotFiniteError
from softctm.inference.pair_inputs import PairInputs
from softctm.inference.tta import first_views
from softctm.model.loading import Model, find_weights, load_model
from softctm.ort.runtime import Runtime
from softctm.pair import CellTissuePair
from softctm.points import CellPoints
from softctm.postprocessing.cell_finder import CellFinder, find_cells

__all__ = ["STAGES", "Detector", "Prediction", "find_cells", "load_detector"]

STAGES = ("tissue", "context", "cells", "peaks")

_CALLERS = 2
"""Threads that share the views on a processor, each with its part of the cores: what is too short to be cut
in two then runs side by side. It takes memory for two passes (docs/performance.md)."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the detector knows about a pair.

    Attributes
    ----------
    points : CellPoints
    tissue_probability : (C, 1024, 1024) float32, or None where maps were not asked for
        Classes of the tissue patch, in the order of the model's `tissue.classes`.
    cell_probability : (3, 1024, 1024) float32, or None where maps were not asked for
        None, background cell, tumor cell, in the cell patch.
    """

    points: CellPoints
    tissue_probability: NDArray[np.float32] | None = None
    cell_probability: NDArray[np.float32] | None = None


class Detector:
    """Finds the cells of a pair. Not to be called from several threads at once.

    Parameters
    ----------
    model : Model
    device : "auto", "cpu" or "cuda"
        `auto` takes CUDA where it works, else the CPU, and says so in `notice`.
    views : 1, 2, 4 or 8
        How many ways each patch is looked at; the mean is taken.
    precision : "float32" or "float16"
        What the networks compute in; 16 bits save time and memory on a graphics card only.

    Attributes
    ----------
    device : "cpu" or "cuda"
        What the networks really run on.
    notice : str or None
        Why `auto` did not take CUDA, or float16 saves nothing.
    seconds : dict
        Time spent so far in each of `STAGES`.

    Raises
    ------
    ModelError, DeviceError, UsageError
    """

    def __init__(
        self,
        model: Model,
        *,
        device: DeviceWish = "auto",
        views: int = 8,
        precision: Precision = "float32",
    ) -> None:
        self.model = model
        ways = first_views(views)
        networks = len(model.tissue.networks) + len(model.cell.networks)
        runtime = Runtime(device, networks, precision, callers=min(views, _CALLERS))
        self.device, self.notice = runtime.device, runtime.notice
        self._runtime = runtime
        self._tissue = Ensemble(runtime, model.tissue, ways)
        self._cells = Ensemble(runtime, model.cell, ways)
        # Networks trained without tissue take the cell patch alone; tissue is then looked at on request only.
        self._cell_only = self._cells.channels == 3
        self._check_channels()
        self._inputs = PairInputs(runtime)
        self._find_cells = CellFinder(runtime, model.postprocessing)
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def __call__(self, pair: CellTissuePair) -> CellPoints:
        """The cells of a pair; an empty `CellPoints` where there are none.

        Raises
        ------
        PairError
            If a network gives NaN or infinity for this pair.
        DeviceError
            If memory runs out.
        """
        return self.predict(pair).points

    def predict(self, pair: CellTissuePair, *, maps: bool = False) -> Prediction:
        """The cells of a pair and, with `maps`, the probabilities that they were found in."""
        inputs, tissue = self._inputs, None
        try:
            if maps or not self._cell_only:
                with self._stage("tissue"):
                    tissue = self._tissue(inputs.tissue(pair))
            with self._stage("context"):
                if self._cell_only or tissue is None:
                    image = inputs.cell_alone(pair)
                else:
                    image = inputs.cell(pair, tissue)
            with self._stage("cells"):
                cells = self._cells(image)
        except NotFiniteError as error:
            remedy = "check the weights, or leave the pair out"
            if self._runtime.precision == "float16":
                remedy = "they may be too large for 16 bits, take --precision float32"
            raise PairError(
                f"pair {pair.name}: the network {error} gave values that are not finite; {remedy}"
            ) from error
        with self._stage("peaks"):
            points = self._find_cells(cells)
        if not maps or tissue is None:
            return Prediction(points)
        return Prediction(points, tissue.numpy()[0], cells.numpy()[0])

    @property
    def seconds_in_networks(self) -> float:
        """Time spent so far inside the networks themselves."""
        return self._tissue.seconds_in_networks + self._cells.seconds_in_networks

    def _check_channels(self) -> None:
        if self._tissue.channels not in (None, 3):
            name = self.model.tissue.networks[0].path.name
            raise ModelError(f"{name}: wants {self._tissue.channels} channels where 3 (RGB) are given")
        if self._tissue.classes not in (2, 3):
            name = self.model.tissue.networks[0].path.name
            raise ModelError(
                f"{name}: gives {self._tissue.classes} classes where background, cancer and perhaps unknown "
                "are wanted"
            )
        given = 3 + self._tissue.classes
        if not self._cell_only and self._cells.channels not in (None, given):
            name = self.model.cell.networks[0].path.name
            raise ModelError(
                f"{name}: wants {self._cells.channels} channels where {given} are given (RGB and "
                f"{self._tissue.classes} tissue classes); tissue and cell networks do not belong together"
            )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


def load_detector(
    weights: Path | str | None = None,
    *,
    device: DeviceWish = "auto",
    views: int = 8,
    precision: Precision = "float32",
    cell_networks: int | None = None,
) -> Detector:
    """Load a model and make a detector of it.

    Parameters
    ----------
    weights : path, optional
        The model's folder. By default `SOFTCTM_WEIGHTS`, else `/opt/ml/model`, else `model_weights/`.
    device : "auto", "cpu" or "cuda"
    views : 1, 2, 4 or 8
    precision : "float32" or "float16"
        What the networks compute in; 16 bits save time and memory on a graphics card only.
    cell_networks : int, optional
        How many of the model's cell networks, the first ones; all by default, and where it has fewer.

    Raises
    ------
    ModelError
        If there is no model, or it cannot be used.
    DeviceError
        If CUDA is asked for and not there.
    UsageError
        If `views` is another number.
    """
    model = load_model(find_weights(weights)).with_cell_networks(cell_networks)
    return Detector(model, device=device, views=views, precision=precision)
