"""What `--start` names: trained networks fold by fold, a pretrained one for all folds, or either by task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from softctm.datasets.patient_folds import Folds
from softctm.errors import InputError, TrainingError, UsageError
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.network_config import NetworkConfig
from softctm.networks.network_table import build_network
from softctm.networks.transfer import transfer_weights
from softctm.training.config import Task, network_from_json
from softctm.training.initialization import Initializer, Start
from softctm.training.run_folder import CONFIG, NETWORK, read_run_file


class PretrainedStart:
    """The network of `softctm pretrain`, for all folds of its task: it has seen none of OCELOT's patients.

    Parameters
    ----------
    folder : Path
        The folder that `softctm pretrain` wrote.

    Attributes
    ----------
    folder : Path
    config : dict
        What the network was trained with.
    folds : None
        It knows nobody's.

    Raises
    ------
    InputError
        If its config.json cannot be read.
    """

    folds: Folds | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.config: dict[str, Any] = read_run_file(folder / CONFIG)
            self._task: Task = self.config["pretraining"]
            self._network = network_from_json(self.config[self._task]["network"])
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{folder / CONFIG}: does not say what was pretrained; pretrain again into another folder"
            ) from None

    def fits(self, task: Task, config: NetworkConfig) -> bool:
        """Whether this is the task's and has the network's encoder; what else fits is handed on with it."""
        own = (self._network.encoder, self._network.depth)
        return task == self._task and own == (config.encoder, config.depth)

    def network(self, task: Task, fold: int) -> Initializer:
        """A network that has what fits of the pretrained one's weights; errors as `transfer_weights`."""

        def initialize(config: NetworkConfig, _images: Iterable[Tensor]) -> SegmentationNetwork:
            network = build_network(config)
            transfer_weights(network, self.folder / task / NETWORK)
            return network

        return initialize


class StartByTask:
    """Tissue and cell networks that start from different folders.

    Parameters
    ----------
    starts : mapping of Task to Start or PretrainedStart
        A task that is not in it has no start.

    Attributes
    ----------
    folder : str
        All folders, for messages.
    config : dict
        Task → what its start was trained with.
    folds : Folds or None
        Whom any of the networks know.

    Raises
    ------
    TrainingError
        If the starts have a patient in different folds.
    """

    def __init__(self, starts: Mapping[Task, Start | PretrainedStart]) -> None:
        self._starts = starts
        self.folder = " and ".join(str(start.folder) for start in starts.values())
        self.config: dict[str, Any] = {task: start.config for task, start in starts.items()}
        self.folds = self._common_folds()

    def _common_folds(self) -> Folds | None:
        known = [start.folds for start in self._starts.values() if start.folds]
        if len(known) < 2:
            return known[0] if known else None
        first, second = known
        shared = first.of_patient.keys() & second.of_patient.keys()
        if first.count != second.count or any(first.of_patient[p] != second.of_patient[p] for p in shared):
            raise TrainingError(
                f"{self.folder}: have patients in different folds; start both tasks from networks "
                "of the same folds"
            )
        return replace(first, of_patient={**second.of_patient, **first.of_patient})

    def fits(self, task: Task, config: NetworkConfig) -> bool:
        """Whether the task has a start, and that fits."""
        return task in self._starts and self._starts[task].fits(task, config)

    def network(self, task: Task, fold: int) -> Initializer:
        """The start's network of the task and fold."""
        return self._starts[task].network(task, fold)


AnyStart = Start | PretrainedStart | StartByTask


def open_start(given: Sequence[str]) -> AnyStart | None:
    """What `--start` names: FOLDER, or TASK=FOLDER once or twice.

    Raises
    ------
    UsageError
        If a folder without task is not alone, a task is unknown, or a task has two.
    TrainingError, InputError, ModelError
        As `Start` and `PretrainedStart`.
    """
    if not given:
        return None
    by_task: dict[Task, Start | PretrainedStart] = {}
    for text in given:
        prefix, separator, rest = text.partition("=")
        task = next((name for name in get_args(Task) if separator and name == prefix), None)
        if task is None:
            if separator and not Path(text).exists():
                raise UsageError(
                    f"--start {text}: is not there, nor a task {prefix}; tasks are "
                    f"{' and '.join(get_args(Task))}"
                )
            if len(given) > 1:
                raise UsageError(
                    f"--start {text}: name the task of each, as in --start cells=RUN --start tissue=MODEL"
                )
            return _opened(Path(text))
        if task in by_task:
            raise UsageError(f"--start {text}: the {task} networks have another start already")
        by_task[task] = _opened(Path(rest))
    return StartByTask(by_task)


def _opened(folder: Path) -> Start | PretrainedStart:
    return PretrainedStart(folder) if is_pretrained(folder) else Start(folder)


def pretraining_datasets(config: Mapping[str, Any]) -> list[str]:
    """The datasets that anything a run started from was pretrained on, sorted.

    Parameters
    ----------
    config : mapping
        A run's config.json.
    """
    names = set(config["data"]) if "pretraining" in config else set()
    for value in config.values():
        if isinstance(value, Mapping):
            names |= set(pretraining_datasets(value))
    return sorted(names)


def is_pretrained(folder: Path) -> bool:
    """Whether `softctm pretrain` wrote the folder."""
    try:
        return "pretraining" in read_run_file(folder / CONFIG)
    except InputError:
        return False
