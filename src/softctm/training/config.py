"""Every number of a training run, in one frozen object a task; the presets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from softctm.errors import UsageError
from softctm.model.tasks import CELL_CLASSES, TISSUE_CLASSES
from softctm.networks.network_config import NetworkConfig

Task = Literal["tissue", "cells"]
Target = Literal["circle", "hard", "soft"]
Coupling = Literal["predicted", "annotated", "none"]
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
    def stored_downsampling(self) -> int:
        """Of the patches that crops are cut from: magnified crops need their finer pixels."""
        return self.network.downsampling if self.augmentation.magnified == 1 else 1


@dataclass(frozen=True)
class Preset:
    """Both tasks of one ensemble. What networks take and give follows from the task and the coupling."""

    tissue: TaskConfig
    cells: TaskConfig

    def __post_init__(self) -> None:
        context = 0 if self.cells.coupling == "none" else len(TISSUE_CLASSES)
        for task, channels, classes in (
            ("tissue", 0, len(TISSUE_CLASSES)),
            ("cells", context, len(CELL_CLASSES)),
        ):
            config = getattr(self, task)
            network = replace(config.network, context_channels=channels, classes=classes)
            object.__setattr__(self, task, replace(config, network=network))

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


_FINETUNED = _compact((14, 18), 2e-3, 0.05, stain=0.2)


def _at_scale(before: Preset, scale: float) -> Preset:
    """A few steps at low rates: tissue around one scale, and cells on what tissue networks find there."""
    tissue = replace(
        before.tissue,
        network=replace(before.tissue.network, scales=(scale,)),
        optimizer=replace(before.tissue.optimizer, learning_rate=3e-4, epochs=2),
        augmentation=replace(before.tissue.augmentation, stain=0.2, magnified=2.0),
    )
    cells = replace(before.cells, optimizer=replace(before.cells.optimizer, learning_rate=4e-4, epochs=3))
    return Preset(tissue, cells)


def _ocelot(architecture: str, coupling: Coupling) -> Preset:
    """OCELOT's DeepLabV3+ with ResNet34 on circles of 1.4 µm (arXiv 2303.13110).

    Where the two papers differ no further, or OCELOT's values are not known to us, the numbers are those of
    the preset `paper`.
    """
    network = NetworkConfig("resnet34", depth=5, decoder_channels=256, downsampling=1)
    return Preset(
        tissue=TaskConfig(
            network,
            OptimizerConfig("sgd", 0.2, 5e-6, "exponential", epochs=100, batch=8),
            AugmentationConfig(),
        ),
        cells=TaskConfig(
            replace(network, architecture=architecture),
            OptimizerConfig("adam", 8e-4, 0.0, "constant", epochs=150, batch=32),
            AugmentationConfig(),
            TargetConfig("circle", circle_radius_um=1.4, loss="generalized-dice"),
            coupling,
        ),
    )


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
    # Made for two processor cores. The default weights are these three in turn, each started from the one
    # before: the first two take an hour and a quarter each, the third less.
    "compact": _compact((12, 12), 4e-3, 0.025, stain=0.0),
    "compact-finetune": _FINETUNED,
    "compact-finetune-scales": _at_scale(_FINETUNED, scale=1.4),
    # OCELOT's ways of joining tissue and cells.
    "ocelot-cell-only": _ocelot("deeplabv3plus", "none"),
    "ocelot-input": _ocelot("deeplabv3plus", "predicted"),
    "ocelot-after-encoder": _ocelot("deeplabv3plus-after-encoder", "predicted"),
    "ocelot-after-aspp": _ocelot("deeplabv3plus-after-aspp", "predicted"),
    "ocelot-after-decoder": _ocelot("deeplabv3plus-after-decoder", "predicted"),
    "ocelot-leaking": _ocelot("deeplabv3plus", "annotated"),
}


def _pretraining(compact: Preset) -> Preset:
    """The compact networks without tissue, on images whose scale and staining are less certain."""

    def changed(config: TaskConfig) -> TaskConfig:
        return replace(
            config,
            optimizer=replace(config.optimizer, epochs=2, encoder_factor=0.05),
            augmentation=replace(config.augmentation, scale=0.2, stain=0.25),
            coupling="none",
        )

    return Preset(changed(compact.tissue), changed(compact.cells))


PRETRAINING_PRESETS = {"compact-pretrain": _pretraining(PRESETS["compact"])}
"""Recipes of `softctm pretrain`. An epoch of CoNSeP, CRCHistoPhenotypes and MoNuSeg has 154 steps."""

OPTIONAL_FACTS = ("segmenter", "precision", "start")
"""What a run's config.json, and the manifest of a model made of it, say only where it is not the usual."""

FINETUNING = {"compact-finetune", "compact-finetune-scales"}
"""Presets for networks that have been trained before; their learning rates are too low for a first one."""

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
