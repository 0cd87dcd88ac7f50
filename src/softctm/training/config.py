"""Every number of a training run, in one frozen object a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from softctm.errors import UsageError
from softctm.model.manifest import AROUND
from softctm.model.tasks import CELL_CLASSES, TISSUE_CLASSES
from softctm.networks.network_config import NetworkConfig
from softctm.networks.ranges import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Range, check_ranges
from softctm.pair import PATCH_SIZE

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

    def __post_init__(self) -> None:
        check_ranges(
            self,
            learning_rate=NOT_NEGATIVE,
            weight_decay=NOT_NEGATIVE,
            epochs=NOT_NEGATIVE,  # without any, networks come out as they were initialized
            batch=AT_LEAST_ONE,
            accumulation=AT_LEAST_ONE,
            decay_per_epoch=Range(0, 1, without=(0,)),
            encoder_factor=NOT_NEGATIVE,
            tissue_factor=NOT_NEGATIVE,
            frozen_stages=NOT_NEGATIVE,
            ema=Range(0, 1, without=(1,)),
        )

    @property
    def micro_batch(self) -> int:
        """How many crops a network sees at a time."""
        return self.batch // self.accumulation


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
        check_ranges(
            self,
            crop=AT_LEAST_ONE,
            scale=Range(0, 1, without=(1,)),
            brightness=SHARE,
            contrast=SHARE,
            stain=SHARE,
            magnified=Range(1, 4),
            probability=SHARE,
        )


@dataclass(frozen=True)
class TargetConfig:
    """What is rendered from point annotations for a cell network to learn, and by which loss."""

    kind: Target = "soft"
    circle_radius_um: float = 1.4
    sigma_um: float = 3.0
    loss: LossName = "square-error"
    class_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)  # none, background cell, tumor cell

    def __post_init__(self) -> None:
        check_ranges(self, circle_radius_um=POSITIVE, sigma_um=POSITIVE, class_weights=NOT_NEGATIVE)
        if not any(self.class_weights):
            raise ValueError("class_weights must not all be 0: nothing would be learned")


@dataclass(frozen=True)
class TaskConfig:
    """One network's training. `target` and `coupling` concern cells only."""

    network: NetworkConfig
    optimizer: OptimizerConfig
    augmentation: AugmentationConfig
    target: TargetConfig = TargetConfig()
    coupling: Coupling = "predicted"

    def __post_init__(self) -> None:
        if PATCH_SIZE % self.network.downsampling:
            raise ValueError(
                f"downsampling must divide the {PATCH_SIZE} pixels of a patch, not be "
                f"{self.network.downsampling}"
            )

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
        If a name is not in the preset, or a value is not of its type or outside its range.
    """
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise UsageError(f"--set {setting}: must be NAME=VALUE, such as cells.target.sigma_um=2")
        try:
            preset = _replaced(preset, name.split("."), text, setting)
        except ValueError as error:  # of the configuration's own checks
            raise UsageError(f"--set {setting}: {error}") from None
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
    try:
        value = _parsed(text, get_type_hints(type(config))[path[0]], current)
    except ValueError:
        raise UsageError(f"--set {setting}: '{text}' does not fit; the preset has {current!r}") from None
    return replace(config, **{path[0]: value})


def _parsed(text: str, hint: Any, current: Any) -> Any:
    """A value of the type that a field has, or ValueError."""
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise ValueError
        return text
    if isinstance(current, tuple):
        values = tuple(float(part) for part in text.split(","))
        if get_args(hint)[-1] is not Ellipsis and len(values) != len(current):
            raise ValueError
        return values
    return type(current)(text)


def preset_from_json(document: dict[str, Any]) -> Preset:
    """The preset that `dataclasses.asdict` and JSON made `document` from."""
    return config_from_json(Preset, document)


def network_from_json(document: dict[str, Any]) -> NetworkConfig:
    """Likewise a network's configuration."""
    return config_from_json(NetworkConfig, document)


def with_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration in today's names, with settings that are newer than it at their defaults.

    So are those of what it started from, of either task, and of pretraining. What is no configuration comes
    back as it is.
    """
    if not isinstance(document, dict):
        return document
    start = {"start": with_defaults(document["start"])} if "start" in document else {}
    try:
        return {**document, **in_json(preset_from_json(document)), **start}
    except (KeyError, TypeError, ValueError):
        tasks = {
            task: _task_with_defaults(task, document[task]) for task in get_args(Task) if task in document
        }
        return {**document, **tasks, **start}


def _task_with_defaults(task: Task, document: Any) -> Any:
    """Likewise the part of one task, of pretraining, or what that task's networks started from."""
    try:
        config = config_from_json(TaskConfig, document)
        return in_json(Preset(config, config).of(task))
    except (KeyError, TypeError, ValueError):
        return with_defaults(document)


def part_with_defaults(document: dict[str, Any], read: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """As `with_defaults`, of a run whose recipe lies under "config" and is read by `read`.

    So is that of the run that it started from.
    """
    start = document.get("start")
    if isinstance(start, dict):
        document = {**document, "start": part_with_defaults(start, read)}
    try:
        return {**document, "config": in_json(read(document["config"]))}
    except (KeyError, TypeError, ValueError):
        return document


def in_json(config: Any) -> dict[str, Any]:
    """A configuration as JSON has it."""
    return cast(dict[str, Any], json.loads(json.dumps(asdict(config))))


def config_from_json(kind: type[Recipe], document: dict[str, Any]) -> Recipe:
    """The configuration that `dataclasses.asdict` and JSON made `document` from.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is none of that kind.
    """
    if not isinstance(document, dict):
        raise TypeError(kind.__name__)
    document = {_FORMER_NAMES.get(name, name): value for name, value in document.items()}
    hints = get_type_hints(kind)
    values = {}
    for field in fields(cast(Any, kind)):
        if field.name not in document and field.default is not MISSING:
            continue  # newer than the document
        value = document[field.name]
        if is_dataclass(hints[field.name]):
            value = config_from_json(cast(type, hints[field.name]), value)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
