"""Every number of a training run, in one frozen object a task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from softctm.errors import UsageError
from softctm.model.manifest import AROUND
from softctm.model.tasks import CELL_CLASSES, TISSUE_CLASSES
from softctm.networks.network_config import NetworkConfig

Task = Literal["tissue", "cells"]
Target = Literal["circle", "hard", "soft"]
Coupling = Literal["predicted", "annotated", "none", "joint", "image"]
"""What cell networks see of the tissue: what tissue networks predict, trained before; what is annotated;
nothing; the tissue patch itself, and they learn its map too ("joint") or do not ("image")."""
LossName = Literal["generalized-dice", "square-error", "cross-entropy"]
Recipe = TypeVar("Recipe")
"""A preset of any task: nested frozen dataclasses."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights move. Learning rates follow `schedule` over the steps of all epochs."""

    name: Literal["adam", "adamw", "sgd"]
    learning_rate: float
    weight_decay: float
    schedule: Literal["constant", "exponential", "one-cycle"]
    epochs: int
    batch: int
    accumulation: int = 1  # micro-batches a step; the batch is divided by it
    decay_per_epoch: float = 0.97  # of the exponential schedule
    encoder_factor: float = 1.0  # of the learning rate, for the encoder's (pretrained) weights
    tissue_factor: float = 1.0  # of the learning rate, for what looks at the tissue patch beside the cells
    frozen_stages: int = 0  # of the encoder, from its stem on, whose weights stay as they are
    ema: float = 0.0  # decay a step of the averaged weights that are kept; 0 keeps the last ones


@dataclass(frozen=True)
class AugmentationConfig:
    """Ranges of the random changes; each happens with `probability`."""

    crop: int = 896  # pixels of the full-resolution patch
    scale: float = 0.1
    brightness: float = 0.2
    contrast: float = 0.2
    stain: float = 0.0  # of each dye's strength
    magnified: float = 1.0  # crops are magnified by a factor from 1 to this, every ratio equally likely
    probability: float = 0.7

    def __post_init__(self) -> None:
        if not 1 <= self.magnified <= 4:
            raise ValueError(f"magnified must lie in 1 … 4, not {self.magnified}")


@dataclass(frozen=True)
class TargetConfig:
    """What is rendered from point annotations for a cell network to learn, and by which loss."""

    kind: Target = "soft"
    circle_radius_um: float = 1.4
    sigma_um: float = 3.0
    loss: LossName = "square-error"
    class_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)  # none, background cell, tumor cell


@dataclass(frozen=True)
class TaskConfig:
    """One network's training. `target` and `coupling` concern cells only."""

    network: NetworkConfig
    optimizer: OptimizerConfig
    augmentation: AugmentationConfig
    target: TargetConfig = TargetConfig()
    coupling: Coupling = "predicted"

    @property
    def sees_pair(self) -> bool:
        """Whether the network is given both patches."""
        return self.coupling in ("joint", "image")

    @property
    def stored_downsampling(self) -> int:
        """Of the patches that crops are cut from: magnified crops need their finer pixels."""
        return self.network.downsampling if self.augmentation.magnified == 1 else 1


@dataclass(frozen=True)
class Preset:
    """Both tasks of one ensemble. What networks take and give follows from the task and the coupling.

    Where the cell networks see both patches, there are no tissue networks: of `tissue` only the augmentation
    is used, for the tissue patches.
    """

    tissue: TaskConfig
    cells: TaskConfig

    def __post_init__(self) -> None:
        tissue, cells, coupling = len(TISSUE_CLASSES), len(CELL_CLASSES), self.cells.coupling
        context = len(AROUND) if self.cells.sees_pair else 0 if coupling == "none" else tissue
        for task, channels, classes in (
            ("tissue", 0, tissue),
            ("cells", context, cells + tissue if coupling == "joint" else cells),
        ):
            config = getattr(self, task)
            network = replace(config.network, context_channels=channels, classes=classes)
            object.__setattr__(self, task, replace(config, network=network))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What is trained, in order."""
        return ("cells",) if self.cells.sees_pair else ("tissue", "cells")

    def of(self, task: Task) -> TaskConfig:
        """The task's part."""
        return self.tissue if task == "tissue" else self.cells


OPTIONAL_FACTS = ("segmenter", "precision", "start", "pair_weights")
"""What a run's config.json, and the manifest of a model made of it, say only where it is not the usual."""

_FORMER_NAMES = {"looks": "scales"}
"""Names in older config.json files → today's."""


def with_settings(preset: Recipe, settings: Sequence[str]) -> Recipe:
    """Change single values, each given as "cells.target.sigma_um=2".

    Raises
    ------
    UsageError
        If a name is not in the preset or a value is not of its type.
    """
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise UsageError(f"--set {setting}: must be NAME=VALUE, such as cells.target.sigma_um=2")
        preset = _replaced(preset, name.split("."), text, setting)
    return preset


def _replaced(config: Any, path: list[str], text: str, setting: str) -> Any:
    names = [field.name for field in fields(config) if not field.metadata.get("follows")]
    if path[0] not in names:
        raise UsageError(f"--set {setting}: no '{path[0]}' here; there are {', '.join(names)}")
    current = getattr(config, path[0])
    if is_dataclass(current):
        if len(path) == 1:
            raise UsageError(f"--set {setting}: '{path[0]}' is a group; name one value in it")
        return replace(config, **{path[0]: _replaced(current, path[1:], text, setting)})
    if len(path) > 1:
        raise UsageError(f"--set {setting}: '{path[0]}' is a value, not a group")
    hint = get_type_hints(type(config))[path[0]]
    try:
        if get_origin(hint) is Literal:
            if text not in get_args(hint):
                raise ValueError
            return replace(config, **{path[0]: text})
        if isinstance(current, tuple):
            values = tuple(float(part) for part in text.split(","))
            if get_args(hint)[-1] is not Ellipsis and len(values) != len(current):
                raise ValueError
            return replace(config, **{path[0]: values})
        return replace(config, **{path[0]: type(current)(text)})
    except ValueError:
        raise UsageError(f"--set {setting}: '{text}' does not fit; the preset has {current!r}") from None


def preset_from_json(document: dict[str, Any]) -> Preset:
    """The preset that `dataclasses.asdict` and JSON made `document` from."""
    return cast(Preset, _built(Preset, document))


def network_from_json(document: dict[str, Any]) -> NetworkConfig:
    """Likewise a network's configuration."""
    return cast(NetworkConfig, _built(NetworkConfig, document))


def with_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration in today's names, with settings that are newer than it at their defaults.

    What is no configuration comes back as it is.
    """
    try:
        preset = json.loads(json.dumps(asdict(preset_from_json(document))))
    except (KeyError, TypeError, ValueError):
        return document
    start = {"start": with_defaults(document["start"])} if "start" in document else {}
    return {**document, **preset, **start}


def _built(kind: type, document: dict[str, Any]) -> Any:
    if not isinstance(document, dict):
        raise TypeError(kind.__name__)
    document = {_FORMER_NAMES.get(name, name): value for name, value in document.items()}
    hints = get_type_hints(kind)
    values = {}
    for field in fields(kind):
        if field.name not in document and field.default is not MISSING:
            continue  # newer than the document
        value = document[field.name]
        if is_dataclass(hints[field.name]):
            value = _built(cast(type, hints[field.name]), value)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
