"""The two tasks: a tissue network and a cell network of one fold, from the arrays to the trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softctm.datasets.ocelot import TISSUE_UNKNOWN, tissue_labels_of
from softctm.errors import TrainingError
from softctm.evaluation.scores import pair_counts, precision_recall_f1
from softctm.evaluation.tissue import tissue_counts
from softctm.networks import DeepLab, NetworkSpec, ServedNetwork, load_network, save_network
from softctm.pair import PATCH_SIZE
from softctm.points import CellPoints
from softctm.postprocessing.peaks import Peaks
from softctm.postprocessing.registry import find_cells
from softctm.training.arrays import TrainingArrays
from softctm.training.augment import augment
from softctm.training.config import TargetConfig, TaskConfig
from softctm.training.initialization import Beginning
from softctm.training.loop import LoopConfig, Loss, is_first_process, train, wait_for_all
from softctm.training.losses import (
    generalized_dice,
    soft_cross_entropy,
    tissue_cross_entropy,
    weighted_square_error,
)
from softctm.training.sampling import balanced_weights, draw
from softctm.training.specs import network_spec

CURVE_RULE = Peaks(sigma_px=4.5, distance_px=7, threshold=0.3)
"""How learning curves find cells: one fixed rule for all runs, chosen on none of them."""

_FIRST_BATCHES = 16
"""Batches that an exported network's batch statistics are measured on."""


def cell_loss(target: TargetConfig) -> Loss:
    """The loss that a target is trained with: generalized Dice, unless the target is soft."""
    weights = torch.tensor(target.class_weights)
    if target.loss == "generalized-dice":
        return generalized_dice
    chosen = weighted_square_error if target.loss == "square-error" else soft_cross_entropy
    return lambda logits, soft: chosen(logits, soft, weights.to(logits.device))


@dataclass(frozen=True)
class FoldJob:
    """Where one network comes from and goes to.

    Attributes
    ----------
    fold : int
        The fold that the network never sees.
    fold_of : sequence of int
        The fold of every patch.
    begin : Beginning
        Makes the network that training begins with.
    loop : LoopConfig
    folder : Path
        Gets the checkpoint, the metrics and the weights.
    """

    fold: int
    fold_of: Sequence[int]
    begin: Beginning
    loop: LoopConfig
    folder: Path

    @property
    def training(self) -> NDArray[np.int64]:
        """Indices of the patches outside the fold."""
        return np.flatnonzero(np.asarray(self.fold_of) != self.fold)

    @property
    def validation(self) -> NDArray[np.int64]:
        """Indices of the patches in the fold."""
        return np.flatnonzero(np.asarray(self.fold_of) == self.fold)


def train_network(
    config: TaskConfig,
    spec: NetworkSpec,
    loss: Loss,
    arrays: TrainingArrays,
    job: FoldJob,
    count: Callable[[Tensor, int], NDArray[np.int64]],
) -> DeepLab:
    """Train one network on the patches outside a fold, or load it where the folder has it already.

    Parameters
    ----------
    arrays : TrainingArrays
        The patches of all folds, at `config.stored_downsampling`.
    count : callable
        (class probabilities (classes, S, S) at the arrays' resolution, index) → (2, 3) hits, false alarms and
        misses of both classes in that patch; their F1s, pooled over the fold, are logged.

    Returns
    -------
    DeepLab
        In evaluation mode, on the CPU; its weights lie in `job.folder`/network.safetensors.

    Raises
    ------
    TrainingError
        If the batch is too small for batch normalization, or as `train` says.
    """
    micro_batch = config.optimizer.batch // config.optimizer.accumulation
    if micro_batch < 2:
        raise TrainingError(
            f"batch {config.optimizer.batch} in {config.optimizer.accumulation} parts: batch normalization "
            "needs at least two patches at a time; lower accumulation or raise batch"
        )
    folder, loop, training, validation = job.folder, job.loop, job.training, job.validation
    path = folder / "network.safetensors"
    if path.exists():
        return load_network(spec, path)
    weights = balanced_weights(arrays.counts[training])
    crop = min(config.augmentation.crop, PATCH_SIZE) // spec.downsampling // 16 * 16
    reduction = spec.downsampling // config.stored_downsampling

    def batch(step: int, first: int, last: int) -> tuple[Tensor, Tensor]:
        chosen = training[draw(weights, config.optimizer.batch, loop.seed, step)]
        drawn = []
        for position in range(first, last):
            rng = np.random.default_rng([loop.seed, step, 1 + position])
            stored = arrays.sample(int(chosen[position]))
            drawn.append(augment(*stored, config.augmentation, crop, rng, reduction))
        images, targets = zip(*drawn, strict=True)
        return torch.stack(images), torch.stack(targets)

    torch.manual_seed(loop.seed)
    network = job.begin(spec, (batch(step, 0, micro_batch)[0] for step in range(_FIRST_BATCHES))).train()
    if not torch.cuda.is_available():
        # A tenth faster on the CPU; the decoder stays contiguous (see FullPrecision).
        network.body.encoder.to(memory_format=torch.channels_last)

    def validate(current: nn.Module) -> dict[str, float]:
        device = next(current.parameters()).device
        # Whole patches are seen as the detector will show them, at the network's own looks.
        seeing = ServedNetwork(cast(DeepLab, current)) if config.stored_downsampling == 1 else current
        losses, counts = [], np.zeros((2, 3), np.int64)
        for index in validation.tolist():
            image, target = arrays.sample(index)
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=loop.bfloat16):
                logits = seeing(image[None].to(device)).float().cpu()
            losses.append(loss(logits, target[None]).item())
            counts += count(logits[0].softmax(0), index)
        first, second = precision_recall_f1(counts)[2]
        return {"validation_loss": float(np.mean(losses)), "validation_mean_f1": float((first + second) / 2)}

    steps = -(-len(training) // config.optimizer.batch)
    trained = train(
        network, batch, loss, steps, config.optimizer, loop, folder, validate if len(validation) else None
    )
    trained.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if is_first_process():
        save_network(cast(DeepLab, trained), path)
    wait_for_all()  # the next stage looks for the file
    return cast(DeepLab, trained)


def train_tissue(config: TaskConfig, arrays: TrainingArrays, job: FoldJob) -> DeepLab:
    """Train a tissue network."""

    def count(probability: Tensor, index: int) -> NDArray[np.int64]:
        # Both as the annotation has them: 1 background, 2 cancer area, 255 unknown.
        annotated = (np.array(arrays.targets[index]) + 1).astype(np.uint8)
        annotated[annotated == 0] = TISSUE_UNKNOWN
        return tissue_counts(tissue_labels_of(probability.numpy()), annotated)

    spec = network_spec("tissue", config)
    return train_network(config, spec, tissue_cross_entropy, arrays, job, count)


def train_cells(
    config: TaskConfig, arrays: TrainingArrays, points: Sequence[CellPoints], job: FoldJob
) -> DeepLab:
    """Train a cell network; `points` are the annotated cells of every patch."""

    def count(probability: Tensor, index: int) -> NDArray[np.int64]:
        full = nn.functional.interpolate(probability[None], (PATCH_SIZE, PATCH_SIZE), mode="bilinear")[0]
        return pair_counts(find_cells(full.numpy(), CURVE_RULE), points[index])

    spec = network_spec("cells", config)
    return train_network(config, spec, cell_loss(config.target), arrays, job, count)


def predict_tissue(network: DeepLab, images: Iterable[NDArray[np.uint8]]) -> Iterable[NDArray[np.float32]]:
    """Class probabilities over whole tissue patches, one view, as the detector computes them.

    Parameters
    ----------
    network : DeepLab
    images : iterable of (1024, 1024, 3) uint8
        Tissue patches.

    Yields
    ------
    (2, 1024, 1024) float32
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    served = ServedNetwork(network).to(device).eval()
    for image in images:
        with torch.inference_mode():
            patch = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None].to(device) / 255
            probability = served(patch).softmax(1)[0].cpu().numpy()
        yield probability
