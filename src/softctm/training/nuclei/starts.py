"""What `softctm train nuclei --start` names: the networks of another run, fold by fold, or a model's one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from softctm.datasets.patients import patient_of_image
from softctm.errors import InputError, TrainingError
from softctm.model import Model
from softctm.model.network_file import Network
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.exported import load_exported
from softctm.networks.nuclei_maps import first_type_row
from softctm.training.nuclei.config import NucleiConfig, nuclei_config_from_json
from softctm.training.nuclei.folds import ALL
from softctm.training.nuclei.task import build_nuclei_network, load_nuclei_network
from softctm.training.run_folder import FOLDS, NETWORK, model_or_run, read_run_file, rights_of

KNOWN_IMAGES = "known_images"
"""Where a model says which images its network learned from, and a run which ones all its networks know."""
KNOWN_BEFORE = "known_before"
"""Where a run's folds.json says the folds of images that its networks know by what they started from."""

_WANTED = "the folder of a run of `softctm train nuclei`, or of a model that `softctm export nuclei` wrote"


class NucleiStart:
    """Networks of nuclei that were trained before.

    Images are known by the name of their data set's folder and their own.

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
        Image → fold, of all images that a run's networks learned from fold by fold; none of a model.
    count : int or None
        How many folds a run has.
    known : list of str or None
        The images that all its networks learned from, which no fold can hold out; None where a model does
        not say.

    Raises
    ------
    TrainingError
        If it is a model of several networks, or of CellViT.
    InputError
        If it is neither, or its configuration or folds cannot be read.
    ModelError
        If the model cannot be loaded, or is of another task.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.folds, self.count = folder, dict[str, int](), None
        self._model, path = model_or_run(folder, _WANTED, "nuclei")
        try:
            manifest = self._model.manifest if self._model else None
            self.facts = {**manifest.training, **rights_of(manifest)} if manifest else read_run_file(path)
            self._config = nuclei_config_from_json(self.facts["config"])
            self._types: list[str] = list(self.facts["types"])
            self._tissues: list[str] = list(self.facts["tissues"])
            self.known: list[str] | None = self.facts.get(KNOWN_IMAGES, None if self._model else [])
            if self._model is None:
                folds = read_run_file(folder / FOLDS)
                self.folds = {**folds.get(KNOWN_BEFORE, {}), **folds["images"]}
                self.count = int(folds["folds"])
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{path}: does not say which networks of nuclei were trained; --start takes {_WANTED}"
            ) from None
        if self._model and (isinstance(self._config.network, str) or len(self._networks(self._model)) > 1):
            raise TrainingError(
                f"{folder}: --start takes a model of one network of a preset such as compact; start from the "
                "run that it was exported from"
            )

    def check(self, config: NucleiConfig) -> None:
        """Make sure that networks of a configuration can start here; TrainingError if their shape differs."""
        if not self._config.has_weights_of(config):
            raise TrainingError(f"{self.folder}: its networks are of another shape than the preset's")

    def check_unknown(self, names: Sequence[str]) -> None:
        """Make sure that a fold could hold out each of some images, and that none is of a known patient.

        Raises
        ------
        TrainingError
            If all networks learned from one of them, or it is not known from which they did.
        """
        if self.known is None:
            raise TrainingError(
                f"{self.folder}: does not say which images it learned from, so that no fold is surely held "
                "out; train with --all-images, or export it anew"
            )
        patients = {patient_of_image(name) for name in self.known}
        if known := sorted(name for name in names if patient_of_image(name) in patients):
            raise TrainingError(
                f"{self.folder}: learned from {known[0]} and {len(known) - 1} others of these images, "
                "so that no fold would be held out; train with --all-images, or start from its run"
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
        if isinstance(network, SegmentationNetwork) and isinstance(trained, SegmentationNetwork):
            network.apply_facts(trained.facts())
        hand_on(trained.state_dict(), network, self._types, types)
        return network

    def _trained(self, fold: int | None, batches: Iterable[Tensor]) -> nn.Module:
        counts = len(self._types), len(self._tissues)
        if self._model is None:
            path = self.folder / (ALL if fold is None else f"fold{fold}") / NETWORK
            if not path.exists():
                raise TrainingError(f"{path}: is not there; --start takes a run that has trained it")
            return load_nuclei_network(self._config, *counts, path)
        return load_exported(self._config.with_maps(counts[0]), self._networks(self._model)[0], batches)

    @staticmethod
    def _networks(model: Model) -> Sequence[Network]:
        (stage,) = model.stages.values()
        return stage.networks


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
