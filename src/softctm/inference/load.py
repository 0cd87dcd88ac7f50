"""From a model folder and a user's choices to the detector of the model's task."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softctm.choices import DeviceChoice
from softctm.inference.detector_options import DetectorOptions
from softctm.model.find import find_weights
from softctm.model.model import Model, load_model
from softctm.model.tasks import OF_PAIRS, TASKS
from softctm.ort.processors import has_int8_arithmetic
from softctm.ort.runtime import cuda_fault


def load_detector(weights: Path | str | None = None, *, as_cells: Sequence[str] = (), **choices: Any) -> Any:
    """Load a model and make a detector of it.

    Parameters
    ----------
    weights : path, optional
        The model's folder. By default `SOFTCTM_WEIGHTS`, else `/opt/ml/model`, else `model_weights/`.
    as_cells : sequence of str, optional
        "TYPE=tumor": makes a detector of cell points of a model of nuclei; nuclei of these types are tumor
        cells, all others background cells.
    **choices
        `device`, `quality`, `views`, `precision`: see `softctm.inference.detector_options.DetectorOptions`.

    Returns
    -------
    Detector
        `softctm.inference.detector.Detector` for models that find cell points; other tasks have their own.
        With `as_cells`, `softctm.inference.nuclei_cells.NucleiAsCells`.

    Raises
    ------
    ModelError
        If there is no model, or it cannot be used.
    DeviceError
        If CUDA is asked for and not there.
    UsageError
        If a choice is out of range, or the model has no type of this name.
    """
    options = DetectorOptions(weights=None if weights is None else Path(weights), **choices)
    return open_cell_detector(options, as_cells) if as_cells else open_detector(options)


def open_cell_detector(options: DetectorOptions, as_cells: Sequence[str] = ()) -> Any:
    """A detector of the cells of pairs, of a model of cells or, with `as_cells`, of nuclei.

    Parameters and errors as `load_detector`.
    """
    if not as_cells:
        return open_detector(
            options,
            *OF_PAIRS,
            remedy="give another with --weights, or name the types of nuclei that are tumor cells with "
            "--as-cells",
        )
    from softctm.inference.nuclei_cells import NucleiAsCells

    remedy = "leave --as-cells out, or give another with --weights"
    return NucleiAsCells(open_detector(options, "nuclei", remedy=remedy), as_cells)


def open_detector(options: DetectorOptions, *tasks: str, remedy: str = "", callers: int = 1) -> Any:
    """`load_detector` with the choices in one object, of models of some tasks only where they are named.

    Parameters
    ----------
    options : DetectorOptions
    *tasks : str
        Where no weights are named, the default model of the first is taken.
    remedy : str
        What to do about a model of another task; see `Model.of_task`.
    callers : int
        From how many threads at once the detector is to be called, if it allows that.
    """
    model = load_model(find_weights(options.weights, TASKS[tasks[0]].shipped if tasks else ""))
    if tasks:
        model = model.of_task(*tasks, remedy=remedy)
    quality = options.chosen_quality
    notice = None
    if options.precision is not None:
        model = model.in_precision(options.precision)
    elif quality.prefers_int8 and _int8_pays(model, options):
        model = model.in_precision("int8")
        notice = f"--quality {options.quality} computes in int8 on this processor"
    model = model.with_networks(list(model.stages)[-1], quality.networks)
    kind = TASKS[model.manifest.task]
    # What a preset takes is cut to what the model allows; views that were asked for are not.
    views = quality.views if options.views else min(quality.views, kind.max_views)
    detector = detector_of(model, options.device, views, callers)
    detector.notice = "; ".join(filter(None, (detector.notice, notice))) or None
    return detector


def detector_of(model: Model, device: DeviceChoice, views: int, callers: int = 1) -> Any:
    """The detector of the model's task; errors as its class says."""
    module, _, name = TASKS[model.manifest.task].detector.partition(":")
    detector = getattr(importlib.import_module(module), name)
    return detector(model, device=device, views=views, callers=callers)


def _int8_pays(model: Model, options: DetectorOptions) -> bool:
    on_cpu = options.device == "cpu" or (options.device == "auto" and cuda_fault() is not None)
    return on_cpu and "int8" in model.precisions and has_int8_arithmetic()
