"""From a model folder and a user's choices to the detector of the model's task."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from softctm.inference.detector_options import DetectorOptions
from softctm.model.find import find_weights
from softctm.model.model import Model, load_model
from softctm.model.tasks import TASKS
from softctm.ort.processors import has_int8_arithmetic
from softctm.ort.runtime import cuda_fault


def load_detector(weights: Path | str | None = None, **choices: Any) -> Any:
    """Load a model and make a detector of it.

    Parameters
    ----------
    weights : path, optional
        The model's folder. By default `SOFTCTM_WEIGHTS`, else `/opt/ml/model`, else `model_weights/`.
    **choices
        `device`, `quality`, `views`, `precision`: see `softctm.inference.detector_options.DetectorOptions`.

    Returns
    -------
    Detector
        `softctm.inference.detector.Detector` for models that find cell points; other tasks have their own.

    Raises
    ------
    ModelError
        If there is no model, or it cannot be used.
    DeviceError
        If CUDA is asked for and not there.
    UsageError
        If a choice is out of range.
    """
    return open_detector(DetectorOptions(weights=None if weights is None else Path(weights), **choices))


def open_detector(options: DetectorOptions, task: str | None = None, callers: int = 1) -> Any:
    """`load_detector` with the choices in one object, of models of one task only where it is named.

    `callers`: from how many threads at once the detector is to be called, if it allows that.
    """
    model = load_model(find_weights(options.weights))
    if task is not None:
        model = model.of_task(task)
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
    module, _, name = kind.detector.partition(":")
    detector = getattr(importlib.import_module(module), name)(
        model, device=options.device, views=views, callers=callers
    )
    detector.notice = "; ".join(filter(None, (detector.notice, notice))) or None
    return detector


def _int8_pays(model: Model, options: DetectorOptions) -> bool:
    on_cpu = options.device == "cpu" or (options.device == "auto" and cuda_fault() is not None)
    return on_cpu and "int8" in model.precisions and has_int8_arithmetic()
