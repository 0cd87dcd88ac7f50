"""Initialization: an encoder's weights, or networks that were trained before, fold by fold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from softctm.datasets.patient_folds import Folds, read_folds
from softctm.errors import InputError, TrainingError
from softctm.model import Model
from softctm.model.network_file import Network
from softctm.model.tasks import OF_PAIRS
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.exported import load_exported
from softctm.networks.network_config import NetworkConfig
from softctm.networks.network_table import build_network
from softctm.networks.weights import load_network
from softctm.training.config import OPTIONAL_FACTS, Task, preset_from_json, with_defaults
from softctm.training.run_folder import FOLDS, NETWORK, model_or_run, read_run_file, rights_of

Initializer = Callable[[NetworkConfig, Iterable[Tensor]], SegmentationNetwork]
"""(what to build, batches of training images) → the initialized network."""


_WANTED = "a run's folder, that of `softctm pretrain`, or that of a model which `softctm export` wrote"


def from_encoder(weights: str | None) -> Initializer:
    """Random weights around an encoder's; see `SegmentationNetwork`."""
    return lambda config, _: build_network(config, weights)


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
    folds : Folds
        Whom the networks know.

    Raises
    ------
    TrainingError
        If it does not say whom its networks know, or is in 8 bits.
    InputError
        If it is neither, or its configuration or folds cannot be read.
    ModelError
        If the model cannot be loaded, or is of another task.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._model, path = model_or_run(folder, _WANTED, *OF_PAIRS)
        try:
            self.config = _config_of(self._model) if self._model else read_run_file(path)
            self._preset = preset_from_json(self.config)
            self.config = with_defaults(self.config)
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path}: does not say which networks of tissue or cells were trained; "
                f"--start takes {_WANTED}"
            ) from None
        self.folds = self._read_folds()

    def _read_folds(self) -> Folds:
        name = FOLDS
        if self._model:
            if self._model.precision == "int8":
                raise TrainingError(
                    f"{self.folder}: in 8 bits, which cannot be trained; start from the model it was made of"
                )
            name = self._model.manifest.folds or "validation/folds.json"
        if not (self.folder / name).is_file():
            raise TrainingError(
                f"{self.folder / name}: is not there, so that nobody knows which patients these networks "
                "have seen; --start needs it"
            )
        return read_folds(self.folder / name)

    def fits(self, task: Task, config: NetworkConfig) -> bool:
        """Whether the task's networks have the weights of this one; how they are used may differ."""
        if task not in self._preset.tasks:
            return False
        return self._preset.of(task).network.has_weights_of(config)

    def network(self, task: Task, fold: int) -> Initializer:
        """The task's network that never saw the fold.

        Where a run has not trained it, or a model holds none or several, what is returned raises
        TrainingError or ModelError.
        """

        def initialize(config: NetworkConfig, images: Iterable[Tensor]) -> SegmentationNetwork:
            if self._model:
                return load_exported(config, self._file(self._model, task, fold), images)
            path = self.folder / task / f"fold{fold}" / NETWORK
            if not path.exists():
                raise TrainingError(f"{path}: is not there; --start takes a finished run")
            return load_network(config, path)

        return initialize

    def _file(self, model: Model, task: Task, fold: int) -> Network:
        part = model.held_out(fold)
        networks = (part.tissue if task == "tissue" else part.cells).networks
        if len(networks) > 1:
            raise TrainingError(
                f"{self.folder}: has {len(networks)} {task} networks that held out fold {fold}; "
                "--start takes a model with one"
            )
        return networks[0]


def _config_of(model: Model) -> dict[str, Any]:
    """A model's manifest, as the config.json of the run that it was exported from."""
    manifest, training = model.manifest, model.manifest.training
    facts = ("seed", "encoder_weights", *OPTIONAL_FACTS)
    return {
        **training["preset"],
        **{name: training[name] for name in facts if name in training},
        **rights_of(manifest),
    }
