"""The training loop: steps, checkpoints, metrics. Knows tissue and cells by names of parameters only.

Randomness comes from (seed, step) alone, never from how the run got to that step, so that a run that was
killed and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softctm.errors import TrainingError
from softctm.networks.freezing import is_of_encoder
from softctm.storage.files import prepare_folder, write_bytes_atomically
from softctm.training.checkpoint import resume, save_checkpoint
from softctm.training.config import OptimizerConfig
from softctm.training.curves import Curves
from softctm.training.feeding import Feed, MicroBatch
from softctm.training.losses import LossFunction
from softctm.training.processes import alone_in, check_shared, join_group

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopConfig:
    """How a run is carried out, as opposed to what is learned."""

    seed: int = 0
    checkpoint_minutes: float = 2.0
    validate_epochs: int = 0  # validate after every so many epochs; 0: never
    bfloat16: bool = True
    workers: int = 0  # processes that make batches; 0: the training process does


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
    feed: Feed,
    loss: LossFunction,
    steps_per_epoch: int,
    optimizer_config: OptimizerConfig,
    config: LoopConfig,
    folder: Path,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    data: str = "",
) -> nn.Module:
    """Train, or resume training, until all epochs are done; returns the averaged (or last) network.

    Under torchrun every process takes its part of each batch. `folder` gets `checkpoint.pt`, `metrics.csv`
    and TensorBoard events.

    Parameters
    ----------
    feed : Feed
        Makes the batches; see `softctm.training.feeding`.
    data : str
        Digest of what is learned from; a checkpoint of other data is refused.

    Raises
    ------
    UsageError
        As `check_shared`.
    TrainingError
        If a gradient is not finite (names step and parameter), or `folder` holds a checkpoint that is
        damaged or of another configuration or other data.
    OutputError
        If the folder cannot be written to, or another process trains this network.
    """
    prepare_folder(folder)
    with alone_in(folder), _memory_told(folder):
        rank, world, device = join_group()
        network = network.to(device)
        averaged = _copy_of(network) if optimizer_config.ema else network
        optimizer = _make_optimizer(network, optimizer_config)
        steps = steps_per_epoch * optimizer_config.epochs
        identity = {
            **asdict(optimizer_config),
            "seed": config.seed,
            "steps": steps,
            "bfloat16": config.bfloat16,
            "data": data,
        }
        step, rows, losses = resume(folder, network, averaged, optimizer, identity, device)
        model: nn.Module = network
        if world > 1:
            synchronized = (
                nn.SyncBatchNorm.convert_sync_batchnorm(network) if device.type == "cuda" else network
            )
            model = nn.parallel.DistributedDataParallel(synchronized)
        parts = _parts(optimizer_config, step, steps, rank, world)
        batches = feed(parts)
        curves = Curves(folder, rows) if rank == 0 and step < steps else None
        saved = began = time.monotonic()
        first = step
        while step < steps:
            model.train()
            # Dropout too draws from the step's own randomness.
            torch.manual_seed(config.seed * 1_000_003 + step * world + rank)
            for group in optimizer.param_groups:
                group["lr"] = group["factor"] * learning_rate(optimizer_config, step, steps, steps_per_epoch)
            optimizer.zero_grad(set_to_none=True)
            for _ in range(optimizer_config.accumulation):
                images, targets = (_moved(part, device) for part in next(batches))
                with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                    output = model(images)
                value = loss(output, targets)
                (value / optimizer_config.accumulation).backward()
                losses.append(value.item())
            _check_gradients(network, step)
            optimizer.step()
            step += 1
            if optimizer_config.ema:
                _average(averaged, network, min(optimizer_config.ema, step / (step + 10)))
            epoch_ends = step % steps_per_epoch == 0
            if epoch_ends and curves is not None:
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
                curves.add(row)
                left = (time.monotonic() - began) / (step - first) * (steps - step)
                shown = ", ".join(f"{name} {number:.4g}" for name, number in row.items() if name != "epoch")
                logger.info(
                    "%s: epoch %d/%d, %s, %.1f min left",
                    folder.name, epoch, optimizer_config.epochs, shown, left / 60,
                )  # fmt: skip
            if epoch_ends:
                losses.clear()
            if rank == 0 and (step == steps or time.monotonic() - saved > config.checkpoint_minutes * 60):
                save_checkpoint(folder, network, averaged, optimizer, identity, step, rows, losses)
                saved = time.monotonic()
        if curves is not None:
            curves.close()
        return averaged.eval()


@contextlib.contextmanager
def _memory_told(folder: Path) -> Iterator[None]:
    """Say what to do where the GPU's memory is too small for a step."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{folder}: a step does not fit into the GPU's memory; raise optimizer.accumulation, which "
            "splits the batch, or lower augmentation.crop"
        ) from error


def lay_out_for_processors(network: nn.Module) -> None:
    """Put channels last, in place, where there is no GPU: up to twice as fast.

    Only for networks without dilated convolutions, whose gradients in bfloat16 this layout spoils.
    """
    if not torch.cuda.is_available():
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _parts(config: OptimizerConfig, step: int, steps: int, rank: int, world: int) -> list[MicroBatch]:
    """This process's parts of the batches from `step` on."""
    check_shared(config.batch, config.accumulation)
    share = config.batch // (world * config.accumulation)
    begins = [(part * world + rank) * share for part in range(config.accumulation)]
    return [MicroBatch(now, begin, begin + share) for now in range(step, steps) for begin in begins]


def _moved(value: Any, device: torch.device) -> Any:
    """Tensors, and dicts and sequences of them, on the device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: _moved(part, device) for name, part in value.items()}
    return [_moved(part, device) for part in value]


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
    """A group for the encoder and one for the rest, each with its `factor` of the learning rate.

    A tissue branch beside the cell branch has two more.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {(False, False): [], (False, True): []}
    for name, parameter in network.named_parameters():
        place = (name.startswith("tissue."), is_of_encoder(name))
        groups.setdefault(place, []).append(parameter)
    parameters = [
        {
            "params": group,
            "factor": (config.tissue_factor if of_tissue else 1.0)
            * (config.encoder_factor if of_encoder else 1.0),
        }
        for (of_tissue, of_encoder), group in groups.items()
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


def _write_metrics(folder: Path, rows: list[dict[str, float]]) -> None:
    """All epochs to CSV, rewritten whole: columns may join later."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes_atomically(folder / "metrics.csv", text.getvalue().encode())
