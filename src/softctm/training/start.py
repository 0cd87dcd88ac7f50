"""What training begins with: an encoder's weights, or networks that were trained before, fold by fold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from softctm.errors import TrainingError
from softctm.model import Model, load_model
from softctm.network_file import MANIFEST
from softctm.networks import DeepLab, NetworkSpec, load_exported, load_network
from softctm.training.config import Task, preset_from_json
from softctm.training.specs import network_spec

Beginning = Callable[[NetworkSpec, Iterable[Tensor]], DeepLab]
"""(what to build, batches of training images) → the network that training begins with."""


def from_encoder(weights: str | None) -> Beginning:
    """Random weights around an encoder's; see `DeepLab`."""
    return lambda spec, _: DeepLab(spec, weights)


class Start:
    """Networks that were trained before: a run's, or those of a model that `softctm export` wrote.

    Parameters
    ----------
    folder : Path
        The run's folder or the model's.

    Attributes
    ----------
    folder : Path
    config : dict
        What the networks were trained with, as a run's config.json says it.
    folds_file : Path
        Who was in which fold.

    Raises
    ------
    TrainingError
        If it is neither, or does not say what its networks are.
    ModelError
        If the model cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._model: Model | None = load_model(folder) if (folder / MANIFEST).exists() else None
        path = folder / (MANIFEST if self._model else "config.json")
        try:
            self.config = _config_of(self._model) if self._model else json.loads(path.read_text())
            self._preset = preset_from_json(self.config)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{path}: does not say what was trained; --start takes a run's folder, or that of a model "
                f"which `softctm export` wrote ({type(error).__name__}: {error})"
            ) from None
        self.folds_file = folder / ("validation/folds.json" if self._model else "folds.json")

    def fits(self, task: Task, spec: NetworkSpec) -> bool:
        """Whether the task's networks have the weights of this one; resolutions may differ."""
        own = network_spec(task, self._preset.tissue if task == "tissue" else self._preset.cells)
        return replace(own, downsampling=spec.downsampling) == spec

    def network(self, task: Task, fold: int) -> Beginning:
        """The task's network that never saw the fold.

        Raises
        ------
        TrainingError
            If a run has not trained it.
        ModelError
            If a model does not hold it.
        """
        if self._model:
            part = self._model.for_fold(fold)
            (file,) = (part.tissue if task == "tissue" else part.cell).networks
            return lambda spec, images: load_exported(spec, file, images)
        path = self.folder / task / f"fold{fold}" / "network.safetensors"
        if not path.exists():
            raise TrainingError(f"{path}: is not there; --start takes a run whose networks are all trained")
        return lambda spec, _: load_network(spec, path)


def _config_of(model: Model) -> dict[str, Any]:
    """A model's manifest, as the config.json of the run that it was exported from."""
    training = model.manifest["training"]
    facts = ("seed", "encoder_weights", "segmenter", "precision", "start")
    return {**training["preset"], **{name: training[name] for name in facts if name in training}}
