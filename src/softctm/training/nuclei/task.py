"""Training of one nuclei network, from images to weights; resuming where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from softctm.errors import TrainingError
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.cellvit import CellViT, CellViTSpec
from softctm.networks.freezing import freeze_stages, is_of_encoder
from softctm.networks.network_table import build_network
from softctm.networks.nuclei_maps import NormalizedCellViT, stacked
from softctm.networks.vit_weights import load_vit
from softctm.networks.weights import load_network, save_network, write_weights
from softctm.training.feeding import feed_from, first_batches, fixed_batches
from softctm.training.finished import check_unchanged, data_fact
from softctm.training.loop import (
    LoopConfig,
    lay_out_for_processors,
    train,
)
from softctm.training.nuclei.config import NucleiConfig
from softctm.training.nuclei.data import NucleiPatches, TrainingImage
from softctm.training.nuclei.losses import nuclei_loss
from softctm.training.nuclei.sampling import oversampling_weights, type_weights
from softctm.training.processes import is_first_process, wait_for_all
from softctm.training.run_folder import NETWORK
from softctm.training.sampling import draw

_VALIDATED = 64
"""Crops that a validation looks at, at most."""
_SEEDS_A_STAGE = 1_000_003


def build_nuclei_network(
    config: NucleiConfig, types: int, tissues: int, encoder_weights: str | None = None
) -> nn.Module:
    """A new network for so many types (background included) and tissues.

    Raises
    ------
    ModelError
        If the encoder's weights cannot be read or do not fit.
    """
    if isinstance(config.network, str):
        network = CellViT(CellViTSpec(config.network, types, max(tissues, 1)))
        if encoder_weights:
            load_vit(network.encoder, Path(encoder_weights))
        return NormalizedCellViT(network)
    return build_network(config.with_maps(types), encoder_weights)


def load_nuclei_network(config: NucleiConfig, types: int, tissues: int, path: Path) -> nn.Module:
    """The network whose weights training wrote, in evaluation mode.

    Raises
    ------
    TrainingError
        If the file cannot be read, or is of another configuration.
    """
    if not isinstance(config.network, str):
        return load_network(config.with_maps(types), path)
    network = build_nuclei_network(config, types, tissues)
    try:
        network.load_state_dict(load_file(path))
    except Exception as error:  # safetensors and PyTorch raise errors of many kinds
        reason = str(error).splitlines()[-1].strip()
        raise TrainingError(f"{path}: cannot be read, or of another configuration ({reason})") from None
    return network.eval()


def train_nuclei_network(
    config: NucleiConfig,
    images: Sequence[TrainingImage],
    held_out: Sequence[TrainingImage],
    types: int,
    tissues: int,
    loop: LoopConfig,
    folder: Path,
    initialize: Callable[[Iterable[Tensor]], nn.Module],
) -> nn.Module:
    """Train one network, or load it where the folder has it already.

    Parameters
    ----------
    config : NucleiConfig
    images, held_out : sequence of TrainingImage
        What is learned from, and what learning curves are drawn of.
    types : int
        Number of types, background included.
    tissues : int
    loop : LoopConfig
    folder : Path
        Gets checkpoints, metrics and `network.safetensors`.
    initialize : callable
        Makes the network to begin with; is given batches of images as in training.

    Raises
    ------
    TrainingError
        As `softctm.training.loop.train`.
    TrainingError, ModelError
        As `initialize`.
    """
    patches, validation = (
        NucleiPatches(part, types, config.augmentation, config.downsampling, loop.seed)
        for part in (images, held_out)
    )
    path = folder / NETWORK
    if path.exists():
        check_unchanged(path, patches.digest)
        return load_nuclei_network(config, types, tissues, path)
    weights = oversampling_weights(patches.present, patches.tissue, config.oversampling)
    batch = config.optimizer.batch
    balance = config.losses.nt_balance
    by_type = torch.from_numpy(type_weights(images, types, balance)) if balance else None

    def loss(output: Any, target: Tensor) -> Tensor:
        maps, tissue = stacked(output)
        return nuclei_loss(maps, target, config.losses, tissue, by_type)

    def validate(current: nn.Module) -> dict[str, float]:
        return _validated(current, validation, loss, batch, loop.bfloat16)

    torch.manual_seed(loop.seed)
    network = initialize(first_batches(patches, partial(draw, weights, batch, loop.seed), batch))
    lay_out_for_processors(network)
    whole = config.optimizer
    frozen = replace(whole, epochs=config.frozen_epochs)
    rest = replace(whole, epochs=whole.epochs - frozen.epochs)
    stages = [(rest, folder)]
    if frozen.epochs:
        stages.insert(0, (frozen, folder / "frozen_encoder"))
        if whole.schedule == "exponential":
            later = whole.learning_rate * whole.decay_per_epoch**frozen.epochs
            stages[1] = (replace(rest, learning_rate=later), folder)
    for number, (optimizer, place) in enumerate(stages):
        is_frozen = number < len(stages) - 1
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not (is_frozen and is_of_encoder(name)))
        if isinstance(network, SegmentationNetwork):
            freeze_stages(network, optimizer.frozen_stages)
        # Each stage counts its steps from 0, and draws other crops.
        seed = loop.seed + number * _SEEDS_A_STAGE
        network = train(
            network,
            feed_from(replace(patches, seed=seed), partial(draw, weights, batch, seed), loop.workers),
            loss,
            -(-len(patches) // batch),
            optimizer,
            loop,
            place,
            validate if len(validation) else None,
            patches.digest,
        )
    network.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.eval()
    if is_first_process():
        if isinstance(network, SegmentationNetwork):
            save_network(network, path, data_fact(patches.digest))
        else:
            write_weights(network, path, data_fact(patches.digest))
    wait_for_all()
    return network


def _validated(
    network: nn.Module, patches: NucleiPatches, loss: Any, batch: int, bfloat16: bool
) -> dict[str, float]:
    """Mean loss and Dice of nuclei over crops of the held-out images, the same ones every time."""
    device = next(network.parameters()).device
    losses, overlap, total = [], 0.0, 0.0
    for crops, targets in fixed_batches(patches, _VALIDATED, batch):
        crops, targets = crops.to(device), targets.to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            output = network(crops)
        losses.append(loss(output, targets).item())
        found, true = stacked(output)[0][:, :2].argmax(1), targets[:, 0]
        overlap += float((found * true).sum())
        total += float(found.sum() + true.sum())
    return {"validation_loss": float(np.mean(losses)), "validation_dice": 2 * overlap / max(total, 1)}
