"""The recipes of cell and tissue networks, by name."""

from __future__ import annotations

from dataclasses import replace

from softctm.networks.network_config import NetworkConfig
from softctm.training.config import (
    AugmentationConfig,
    Coupling,
    OptimizerConfig,
    Preset,
    TargetConfig,
    TaskConfig,
)


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


def _of_pairs(architecture: str, coupling: Coupling) -> Preset:
    """The recipe `compact` for networks that see both patches."""
    compact = _compact((12, 12), 4e-3, 0.025, stain=0.0)
    network = replace(compact.cells.network, architecture=architecture)
    return replace(compact, cells=replace(compact.cells, network=network, coupling=coupling))


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
    "ocelot-joint": _ocelot("joint-deeplabv3plus-after-aspp", "joint"),
    "ocelot-sharing": _ocelot("feature-sharing", "joint"),
    "ocelot-mfovce": _ocelot("mfovce-net", "image"),
    # The same for two processor cores.
    "compact-joint": _of_pairs("joint-deeplabv3plus-after-aspp", "joint"),
    "compact-sharing": _of_pairs("feature-sharing", "joint"),
    "compact-mfovce": _of_pairs("mfovce-net", "image"),
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

FINETUNING = {"compact-finetune", "compact-finetune-scales"}
"""Presets for networks that have been trained before; their learning rates are too low for a first one."""
