"""The two tasks: a tissue network and a cell network of one fold, from the arrays to the trained network."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from softctm.errors import TrainingError
from softctm.networks import DeepLab, NetworkSpec
from softctm.pair import PATCH_SIZE
from softctm.training.arrays import TrainingArrays
from softctm.training.augment import augment
from softctm.training.config import TargetConfig, TaskConfig
from softctm.training.loop import Loss, LoopConfig, train
from softctm.training.losses import (
    generalised_dice,
    soft_cross_entropy,
    tissue_cross_entropy,
    weighted_square_error,
)
from softctm.training.sampling import balanced_weights, draw

TISSUE_CLASSES = ("background", "cancer")
CELL_CLASSES = ("none", "background_cell", "tumor_cell")


def network_spec(config: TaskConfig, classes: int, context_channels: int) -> NetworkSpec:
    """What the task's configuration says of its network."""
    n = config.network
    return NetworkSpec(n.encoder, n.depth, n.decoder_channels, context_channels, classes, n.downsampling)


def cell_loss(target: TargetConfig) -> Loss:
    """The loss that a target is trained with: generalised Dice, unless the target is soft."""
    weights = torch.tensor(target.class_weights)
    if target.loss == "generalised-dice":
        return generalised_dice
    chosen = weighted_square_error if target.loss == "square-error" else soft_cross_entropy
    return lambda logits, soft: chosen(logits, soft, weights.to(logits.device))


def train_network(
    config: TaskConfig,
    spec: NetworkSpec,
    loss: Loss,
    arrays: TrainingArrays,
    training: NDArray[np.int64],
    validation: NDArray[np.int64],
    encoder_weights: str | None,
    loop: LoopConfig,
    folder: Path,
    scores: Callable[[Tensor, Tensor], dict[str, float]] | None = None,
) -> DeepLab:
    """Train one network on the patches `training`, or load it where `folder` has it already.

    Parameters
    ----------
    arrays : TrainingArrays
        All patches; `training` and `validation` are indices into them.
    scores : callable, optional
        Turns logits and target of one validation patch into named figures, whose means are logged beside the loss.

    Returns
    -------
    DeepLab
        In evaluation mode, on the CPU; its weights lie in `folder`/network.safetensors.
    """
    path = folder / "network.safetensors"
    if path.exists():
        return load_network(spec, path)
    torch.manual_seed(loop.seed)
    network = DeepLab(spec, encoder_weights).train()
    if not torch.cuda.is_available():
        # A tenth faster on the CPU; the decoder stays contiguous (see FullPrecision).
        network.body.encoder.to(memory_format=torch.channels_last)
    weights = balanced_weights(arrays.counts[training])
    crop = min(config.augmentation.crop, PATCH_SIZE) // spec.downsampling // 16 * 16

    def batch(step: int, first: int, last: int) -> tuple[Tensor, Tensor]:
        chosen = training[draw(weights, config.optimiser.batch, loop.seed, step)]
        drawn = []
        for position in range(first, last):
            rng = np.random.default_rng([loop.seed, step, 1 + position])
            drawn.append(augment(*arrays.sample(int(chosen[position])), config.augmentation, crop, rng))
        images, targets = zip(*drawn, strict=True)
        return torch.stack(images), torch.stack(targets)

    def validate(current: nn.Module) -> dict[str, float]:
        device = next(current.parameters()).device
        rows = []
        for index in validation:
            image, target = arrays.sample(int(index))
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=loop.bfloat16):
                logits = current(image[None].to(device)).float().cpu()
            row = {"validation_loss": loss(logits, target[None]).item()}
            rows.append(row | (scores(logits[0], target) if scores else {}))
        return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}

    steps = -(-len(training) // config.optimiser.batch)
    trained = train(network, batch, loss, steps, config.optimiser, loop, folder, validate if len(validation) else None)
    trained.cpu().to(memory_format=torch.contiguous_format)
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, folder / "partial.safetensors")
    (folder / "partial.safetensors").rename(path)
    return trained  # type: ignore[return-value]


def load_network(spec: NetworkSpec, path: Path) -> DeepLab:
    """A trained network from its weights; TrainingError where they are of another configuration."""
    network = DeepLab(spec)
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise TrainingError(f"{path}: from another configuration ({str(error).splitlines()[-1].strip()})") from None
    return network.eval()


def pixel_f1(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """F1 of both tissue classes over the known pixels of one patch; NaN for a class that is nowhere."""
    known = labels >= 0
    predicted = logits.argmax(0)
    result = {}
    for index, name in enumerate(TISSUE_CLASSES):
        hits = ((predicted == index) & (labels == index)).sum()
        total = ((predicted == index) & known).sum() + (labels == index).sum()
        result[f"f1_{name}"] = float(2 * hits / total) if total else float("nan")
    return result


def split(fold_of: Sequence[int], fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices outside and inside a fold."""
    folds = np.asarray(fold_of)
    return np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)


def train_tissue(
    config: TaskConfig,
    arrays: TrainingArrays,
    fold_of: Sequence[int],
    fold: int,
    encoder_weights: str | None,
    loop: LoopConfig,
    folder: Path,
) -> DeepLab:
    """The tissue network that never saw `fold`."""
    training, validation = split(fold_of, fold)
    spec = network_spec(config, len(TISSUE_CLASSES), 0)
    return train_network(
        config, spec, tissue_cross_entropy, arrays, training, validation, encoder_weights, loop, folder, pixel_f1
    )


def train_cells(
    config: TaskConfig,
    arrays: TrainingArrays,
    fold_of: Sequence[int],
    fold: int,
    encoder_weights: str | None,
    loop: LoopConfig,
    folder: Path,
) -> DeepLab:
    """The cell network that never saw `fold`."""
    training, validation = split(fold_of, fold)
    context_channels = 0 if arrays.context is None else arrays.context.shape[1]
    spec = network_spec(config, len(CELL_CLASSES), context_channels)
    loss = cell_loss(config.target)
    return train_network(config, spec, loss, arrays, training, validation, encoder_weights, loop, folder)


def predict_tissue(network: DeepLab, images: Iterable[NDArray[np.uint8]]) -> Iterable[NDArray[np.float32]]:
    """Class probabilities over whole tissue patches, one view, as the detector computes them.

    Parameters
    ----------
    network : DeepLab
    images : iterable of (3, S, S) uint8
        Tissue patches at the network's resolution.

    Yields
    ------
    (2, 1024, 1024) float32
    """
    factor = network.spec.downsampling
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).eval()
    for image in images:
        with torch.inference_mode():
            logits = network(torch.from_numpy(np.array(image)).float()[None].to(device) / 255)
            full = nn.functional.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)
            yield full.softmax(1)[0].cpu().numpy()
    sys.stdout.flush()
