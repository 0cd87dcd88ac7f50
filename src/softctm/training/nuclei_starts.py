"""What `softctm train nuclei --start` names: the networks of another run, fold by fold, or a model's one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softctm.errors import InputError, TrainingError
from softctm.model import Model, load_model
from softctm.model.network_file import MANIFEST
from softctm.networks.exported import load_exported
from softctm.networks.nuclei_maps import first_type_row
from softctm.training.image_folds import ALL, FOLDS
from softctm.training.nuclei_config import NucleiConfig, nuclei_config_from_json
from softctm.training.nuclei_task import NETWORK, build_nuclei_network, load_nuclei_network
from softctm.training.run_folder import CONFIG, read_run_file

KNOWN_IMAGES = "known_images"
"""Where a model says which images its network learned from."""


class NucleiStart:
    """Networks of nuclei that were trained before.

    Parameters
    ----------
    folder : Path
        Of a run, whose networks start those of the same folds; or of a model that `softctm export nuclei`
        wrote of one network, which starts all.

    Attributes
    ----------
    folder : Path
    facts : dict
        What the networks were trained with, as a run's config.json says it.
    folds : dict of str to int
        Image → fold, of all images that a run knows; none of a model.

    Raises
    ------
    TrainingError
        If it is neither, or a model of several networks.
    ModelError
        If the model cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.folds = folder, dict[str, int]()
        self._model: Model | None = load_model(folder) if (folder / MANIFEST).exists() else None
        path = folder / (MANIFEST if self._model else CONFIG)
        try:
            self.facts: dict[str, Any] = self._model.manifest.training if self._model else read_run_file(path)
            self._config = nuclei_config_from_json(self.facts["config"])
            self._types: list[str] = list(self.facts["types"])
            self._tissues: list[str] = list(self.facts["tissues"])
            if self._model is None:
                self.folds = dict(read_run_file(folder / FOLDS)["images"])
        except (InputError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{path}: does not say which networks of nuclei were trained; --start takes the folder of a "
                "run of `softctm train nuclei`, or of a model that `softctm export nuclei` wrote "
                f"({type(error).__name__}: {error})"
            ) from None

    def check(self, names: Sequence[str], config: NucleiConfig) -> None:
        """Make sure that networks of a configuration can start here, and that held-out images are unknown.

        Parameters
        ----------
        names : sequence of str
            All images of the run, unless its network holds out none.
        config : NucleiConfig

        Raises
        ------
        TrainingError
            If the networks are of another shape, or a model learned from one of the images.
        """
        if not self._config.has_weights_of(config):
            raise TrainingError(f"{self.folder}: its networks are of another shape than the preset's")
        known = sorted(set(names) & set(self.facts.get(KNOWN_IMAGES, ()))) if self._model else []
        if known:
            raise TrainingError(
                f"{self.folder}: learned from {known[0]} and {len(known) - 1} others of these images, so "
                "that no fold would be held out; train with --all-images, or start from its run"
            )

    def network(
        self,
        config: NucleiConfig,
        fold: int | None,
        types: Sequence[str],
        tissues: int,
        batches: Iterable[Tensor],
    ) -> nn.Module:
        """The network that held out a fold, or nothing, made to tell other types apart.

        Parameters
        ----------
        config : NucleiConfig
            Of the network to be made.
        fold : int, optional
        types : sequence of str
            Background first. What the network knows of a type is handed on by its name; new ones are random.
        tissues : int
        batches : iterable of (B, 3, H, W) float32
            As in training: the first batch statistics of an exported network.

        Raises
        ------
        TrainingError
            If a run has not trained it, or it cannot be read.
        ModelError
            If a model's network cannot be trained further.
        """
        trained = self._trained(fold, batches)
        network = build_nuclei_network(config, len(types), tissues)
        hand_on(trained.state_dict(), network, self._types, types)
        return network

    def _trained(self, fold: int | None, batches: Iterable[Tensor]) -> nn.Module:
        counts = len(self._types), len(self._tissues)
        if self._model is None:
            path = self.folder / (ALL if fold is None else f"fold{fold}") / NETWORK
            if not path.exists():
                raise TrainingError(f"{path}: is not there; --start takes a run that has trained it")
            return load_nuclei_network(self._config, *counts, path)
        (stage,) = self._model.stages.values()
        if len(stage.networks) > 1 or isinstance(self._config.network, str):
            raise TrainingError(
                f"{self.folder}: --start takes a model of one network of a preset such as compact; "
                "start from the run that it was exported from"
            )
        return load_exported(self._config.with_maps(counts[0]), stage.networks[0], batches)


@torch.no_grad()
def hand_on(given: Mapping[str, Tensor], network: nn.Module, own: list[str], wanted: Sequence[str]) -> None:
    """Fill a network, in place, with what fits of another one's weights; types by their names.

    Parameters
    ----------
    given : mapping of str to Tensor
        State of a network of the same architecture.
    network : Module
    own : list of str
        Types of that network, background first.
    wanted : sequence of str
        Types of this one.
    """
    for name, target in network.state_dict().items():
        source = given.get(name)
        first = first_type_row(name)
        if source is not None and first is not None:
            target[:first].copy_(source[:first])
            for row, kind in enumerate(wanted):
                if kind in own:
                    target[first + row].copy_(source[first + own.index(kind)])
        elif source is not None and source.shape == target.shape:
            target.copy_(source)
