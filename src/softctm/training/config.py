"""Every number of a training run, in one frozen object a task; the presets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from softctm.errors import UsageError

Task = Literal["tissue", "cells"]
Target = Literal["circle", "hard", "soft"]
Coupling = Literal["predicted", "annotated", "none"]
Loss = Literal["generalized-dice", "square-error", "cross-entropy"]


@dataclass(frozen=True)
class NetworkConfig:
    """The encoder and what surrounds it; see `softctm.networks.NetworkSpec`."""

    encoder: str
    depth: int
    decoder_channels: int
    downsampling: int  # 2: works at 0.4 mpp for cells, at 1.6 mpp for tissue
    looks: tuple[float, ...] = (1.0,)  # magnifications at which a trained network looks at a patch

    def __post_init__(self) -> None:
        if not self.looks or not all(0 < look <= 4 for look in self.looks):
            raise ValueError(f"looks must be some, in 0 … 4 (0 excluded), not {self.looks}")


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
    ema: float = 0.0  # decay a step of the averaged weights that are kept; 0 keeps the last ones


@dataclass(frozen=True)
class AugmentationConfig:
    """Ranges of the random changes; each happens with `probability`."""

    crop: int = 896  # pixels of the full-resolution patch
    scale: float = 0.1
    brightness: float = 0.2
    contrast: float = 0.2
    stain: float = 0.0  # of each dye's strength
    magnified: float = 1.0  # crops are always seen at magnifications from 1 to this, every ratio alike
    probability: float = 0.7

    def __post_init__(self) -> None:
        if not 1 <= self.magnified <= 4:
            raise ValueError(f"magnified must lie in 1 … 4, not {self.magnified}")


@dataclass(frozen=True)
class TargetConfig:
    """What a cell network is taught to paint."""

    kind: Target = "soft"
    circle_radius_um: float = 1.4
    sigma_um: float = 3.0
    loss: Loss = "square-error"
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
    def stored_downsampling(self) -> int:
        """Of the patches that crops are cut from: magnified crops need their finer pixels."""
        return self.network.downsampling if self.augmentation.magnified == 1 else 1


@dataclass(frozen=True)
class Preset:
    """Both tasks of one ensemble."""

    tissue: TaskConfig
    cells: TaskConfig

    def of(self, task: Task) -> TaskConfig:
        """The task's part."""
        return self.tissue if task == "tissue" else self.cells


def _compact(epochs: tuple[int, int], learning_rate: float, encoder_factor: float, stain: float) -> Preset:
    """A recipe for ResNet18 at 1.6 mpp (tissue) and 0.4 mpp (cells); `epochs` of tissue and of cells."""
    network = NetworkConfig("resnet18", depth=4, decoder_channels=128, downsampling=2)
    tissue, cells = (
        OptimizerConfig(
            "adamw",
            learning_rate,
            1e-2,
            "one-cycle",
            number,
            batch=4,
            encoder_factor=encoder_factor,
            ema=0.995,
        )
        for number in epochs
    )
    target = TargetConfig("soft", sigma_um=2.0, loss="cross-entropy", class_weights=(1.0, 2.0, 2.0))
    return Preset(
        TaskConfig(network, tissue, AugmentationConfig()),
        TaskConfig(network, cells, AugmentationConfig(stain=stain), target),
    )


_SECOND_ROUND = _compact((14, 18), 2e-3, 0.05, stain=0.2)


def _touched_up(before: Preset, look: float) -> Preset:
    """A few steps at low rates: tissue around the magnification `look`, and cells on what that shows."""
    tissue = replace(
        before.tissue,
        network=replace(before.tissue.network, looks=(look,)),
        optimizer=replace(before.tissue.optimizer, learning_rate=3e-4, epochs=2),
        augmentation=replace(before.tissue.augmentation, stain=0.2, magnified=2.0),
    )
    cells = replace(before.cells, optimizer=replace(before.cells.optimizer, learning_rate=4e-4, epochs=3))
    return Preset(tissue, cells)


PRESETS = {
    # The paper's values (arXiv 2312.12151).
    "paper": Preset(
        tissue=TaskConfig(
            NetworkConfig("resnet50", depth=5, decoder_channels=256, downsampling=1),
            OptimizerConfig("sgd", 0.2, 5e-6, "exponential", epochs=100, batch=8),
            AugmentationConfig(),
        ),
        cells=TaskConfig(
            NetworkConfig("resnet50", depth=5, decoder_channels=256, downsampling=1),
            OptimizerConfig("adam", 8e-4, 0.0, "constant", epochs=150, batch=32),
            AugmentationConfig(),
        ),
    ),
    # What two processor cores can train in an hour and a quarter; a second round, which starts from the first
    # one's networks and takes as long again; and a short third: together, the default weights.
    "compact": _compact((12, 12), 4e-3, 0.025, stain=0.0),
    "compact-second-round": _SECOND_ROUND,
    "compact-third-round": _touched_up(_SECOND_ROUND, look=1.4),
}


OPTIONAL_FACTS = ("segmenter", "precision", "start")
"""What a run's config.json, and the manifest of a model made of it, say only where it is not the usual."""

LATER_ROUNDS = {"compact-second-round", "compact-third-round"}
"""Presets for networks that have been trained before; their rates are too low to begin with."""


def with_settings(preset: Preset, settings: Sequence[str]) -> Preset:
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
    names = [field.name for field in fields(config)]
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


def with_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration, with what has come to presets since it was written at its default.

    What is no configuration comes back as it is.
    """
    try:
        preset = json.loads(json.dumps(asdict(preset_from_json(document))))
    except (KeyError, TypeError, ValueError):
        return document
    return {**document, **preset}


def _built(kind: type, document: dict[str, Any]) -> Any:
    hints = get_type_hints(kind)
    values = {}
    for field in fields(kind):
        if field.name not in document and field.default is not MISSING:
            continue  # younger than the document
        value = document[field.name]
        if is_dataclass(hints[field.name]):
            value = _built(cast(type, hints[field.name]), value)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
