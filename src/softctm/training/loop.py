"""The training loop: steps, checkpoints, metrics. Knows nothing of tissue or cells.

Randomness comes from (seed, step) alone, never from how the run got to that step, so that a run that was
killed and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softctm.errors import TrainingError
from softctm.training.config import OptimizerConfig

Batch = Callable[[int, int, int], tuple[Tensor, Tensor]]
"""(step, first, last) → the images and targets of that part of the step's batch."""

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LoopConfig:
    """How a run is carried out, as opposed to what is learned."""

    seed: int = 0
    checkpoint_minutes: float = 2.0
    validate_epochs: int = 0  # validate after every so many epochs; 0: never
    bfloat16: bool = True


def learning_rate(config: OptimizerConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    """Learning rate of one step, 0-based.

    "one-cycle" rises from 1/25 of the rate over the first tenth, then falls to 1/1000, along half cosines.
    """
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "exponential":
        return config.learning_rate * config.decay_per_epoch ** (step // steps_per_epoch)
    warmup = max(1, steps // 10)
    low, high, position = 1 / 25, 1.0, step / warmup
    if step >= warmup:
        low, high, position = 1.0, 1 / 1000, (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * (low + (high - low) * (1 - math.cos(math.pi * min(position, 1))) / 2)


def train(
    network: nn.Module,
    batch: Batch,
    loss: Loss,
    steps_per_epoch: int,
    optimizer_config: OptimizerConfig,
    config: LoopConfig,
    folder: Path,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
) -> nn.Module:
    """Train, or go on training, until all epochs are done; returns the averaged (or last) network.

    Under torchrun every process takes its part of each batch. `folder` gets `checkpoint.pt`, `metrics.csv`
    and TensorBoard events.

    Raises
    ------
    TrainingError
        If a gradient is not finite (names step and parameter), or `folder` holds a checkpoint of another
        configuration.
    """
    rank, world, device = _place()
    folder.mkdir(parents=True, exist_ok=True)
    network = network.to(device)
    averaged = _copy_of(network) if optimizer_config.ema else network
    optimizer = _make_optimizer(network, optimizer_config)
    steps = steps_per_epoch * optimizer_config.epochs
    identity = {**asdict(optimizer_config), "seed": config.seed, "steps": steps, "bfloat16": config.bfloat16}
    step, rows, losses = _resume(folder, network, averaged, optimizer, identity, device)
    model: nn.Module = network
    if world > 1:
        synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(network) if device.type == "cuda" else network
        model = nn.parallel.DistributedDataParallel(synchronized)
    share = optimizer_config.batch // (world * optimizer_config.accumulation)
    if share * world * optimizer_config.accumulation != optimizer_config.batch:
        raise TrainingError(f"a batch of {optimizer_config.batch} cannot be shared by {world} processes")
    saved = began = time.monotonic()
    first = step
    while step < steps:
        model.train()
        # Dropout too draws from the step's own randomness.
        torch.manual_seed(config.seed * 1_000_003 + step * world + rank)
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(optimizer_config, step, steps, steps_per_epoch)
        optimizer.zero_grad(set_to_none=True)
        for part in range(optimizer_config.accumulation):
            begin = (part * world + rank) * share
            images, targets = batch(step, begin, begin + share)
            images, targets = images.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                logits = model(images)
            value = loss(logits, targets)
            (value / optimizer_config.accumulation).backward()
            losses.append(value.item())
        _check_gradients(network, step)
        optimizer.step()
        step += 1
        if optimizer_config.ema:
            _average(averaged, network, min(optimizer_config.ema, step / (step + 10)))
        epoch_ends = step % steps_per_epoch == 0
        if epoch_ends and rank == 0:
            epoch = step // steps_per_epoch
            row = {
                "epoch": epoch,
                "loss": float(np.mean(losses)),
                "learning_rate": optimizer.param_groups[0]["lr"],
            }
            due = config.validate_epochs and (epoch % config.validate_epochs == 0 or step == steps)
            if validate is not None and due:
                averaged.eval()
                row |= validate(averaged)
            rows.append(row)
            _write_metrics(folder, rows)
            left = (time.monotonic() - began) / (step - first) * (steps - step)
            shown = ", ".join(f"{name} {number:.4g}" for name, number in row.items() if name != "epoch")
            print(
                f"{folder.name}: epoch {epoch}/{optimizer_config.epochs}, {shown}, {left / 60:.1f} min left",
                flush=True,
            )
        if epoch_ends:
            losses.clear()
        if rank == 0 and (step == steps or time.monotonic() - saved > config.checkpoint_minutes * 60):
            _save(folder, network, averaged, optimizer, identity, step, rows, losses)
            saved = time.monotonic()
    return averaged.eval()


def is_first_process() -> bool:
    """Whether this process writes what all have learned; without torchrun the only one does."""
    return os.environ.get("RANK", "0") == "0"


def wait_for_all() -> None:
    """Let every process of torchrun's group get here before any goes on."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _place() -> tuple[int, int, torch.device]:
    """Rank, number of processes and device of this one; joins torchrun's group."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
    if cuda:
        torch.cuda.set_device(local)
    return rank, world, torch.device("cuda", local) if cuda else torch.device("cpu")


def _copy_of(network: nn.Module) -> nn.Module:
    import copy

    averaged = copy.deepcopy(network)
    for parameter in averaged.parameters():
        parameter.requires_grad_(False)
    return averaged


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Exponential moving average of weights and of batch norm's statistics."""
    for mine, theirs in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


def _make_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """One group for the encoder and one for the rest, each with its `factor` of the learning rate."""
    encoder = [parameter for name, parameter in network.named_parameters() if ".encoder." in name]
    others = [parameter for name, parameter in network.named_parameters() if ".encoder." not in name]
    parameters = [
        {"params": others, "factor": 1.0},
        {"params": encoder, "factor": config.encoder_factor},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters, config.learning_rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
        )
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, config.learning_rate, weight_decay=config.weight_decay)


def _check_gradients(network: nn.Module, step: int) -> None:
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    norm = torch.nn.utils.get_total_norm(list(gradients.values()))
    if not torch.isfinite(norm):
        bad = next(
            (name for name, gradient in gradients.items() if not gradient.isfinite().all()), "their norm"
        )
        raise TrainingError(
            f"step {step}: the gradient of {bad} is not finite; "
            "lower the learning rate or train with --precision float32"
        )


def _resume(
    folder: Path,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
    device: torch.device,
) -> tuple[int, list[dict[str, float]], list[float]]:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0, [], []
    state = torch.load(path, map_location=device, weights_only=True)
    if state["identity"] != identity:
        different = sorted(name for name in identity if state["identity"].get(name) != identity[name])
        raise TrainingError(
            f"{path}: from a run with another {', '.join(different)}; choose another --run folder"
        )
    network.load_state_dict(state["network"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), list(state["rows"]), list(state["losses"])


def _save(
    folder: Path,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
    step: int,
    rows: list[dict[str, float]],
    losses: list[float],
) -> None:
    """Write the checkpoint beside the old one, then take its place."""
    state = {
        "identity": identity,
        "step": step,
        "rows": rows,
        "losses": losses,
        "network": network.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    partial = folder / "checkpoint.partial.pt"
    torch.save(state, partial)
    partial.replace(folder / "checkpoint.pt")


def _write_metrics(folder: Path, rows: list[dict[str, float]]) -> None:
    """All epochs to CSV (rewritten whole: columns may join later), the newest to TensorBoard."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=int(rows[-1]["epoch"])) as board:
        for name, value in rows[-1].items():
            if name != "epoch":
                board.add_scalar(name, value, int(rows[-1]["epoch"]))
