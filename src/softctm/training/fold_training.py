"""The two tasks: a tissue network and a cell network of one fold, from the arrays to the trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from softctm.datasets.ocelot import TISSUE_UNKNOWN, tissue_labels_of
from softctm.errors import UsageError
from softctm.evaluation.scores import pair_counts, precision_recall_f1
from softctm.evaluation.tissue import tissue_counts
from softctm.model.tasks import CELL_CLASSES, TISSUE_CLASSES
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.device import own_device
from softctm.networks.freezing import freeze_stages
from softctm.networks.network_table import architecture_of
from softctm.networks.served import ServedNetwork
from softctm.networks.trainable import check_trainable
from softctm.networks.weights import load_network, save_network
from softctm.pair import PATCH_SIZE
from softctm.points import CellClass, CellPoints
from softctm.postprocessing.methods import find_cells
from softctm.postprocessing.peaks import Peaks
from softctm.training.arrays import TrainingArrays
from softctm.training.config import Task, TaskConfig
from softctm.training.crops import CropDataset
from softctm.training.feeding import feed_from, first_batches
from softctm.training.finished import check_unchanged, data_fact
from softctm.training.initialization import Initializer
from softctm.training.learnable import check_learnable
from softctm.training.loop import LoopConfig, train
from softctm.training.losses import LossFunction, cell_loss, tissue_cross_entropy
from softctm.training.processes import check_shared, is_first_process, wait_for_all
from softctm.training.run_folder import NETWORK
from softctm.training.sampling import balanced_weights, draw

CURVE_RULE = Peaks(sigma_px=4.5, distance_px=7, threshold=0.3)
"""How learning curves find cells: one fixed rule for all runs, chosen on none of them."""

LEARNED = {
    "tissue": (TISSUE_CLASSES, "pixels of known tissue"),
    "cells": ([f"{kind.name.lower()} cell" for kind in CellClass], "cells"),
}
"""Task → the names of what is counted in its annotations, and what that is."""


@dataclass(frozen=True)
class FoldJob:
    """Where one network comes from and goes to.

    Attributes
    ----------
    fold : int
        The fold that is held out.
    fold_of : sequence of int
        The fold of every patch.
    initialize : Initializer
        Makes the network that training starts from.
    loop : LoopConfig
    folder : Path
        Gets the checkpoint, the metrics and the weights.
    patients : sequence of str
        The patient of every patch.
    importance : sequence of float or None
        How often every patch is drawn relative to what it would be otherwise; 0 leaves it out of training.
        None: 1 each.
    """

    fold: int
    fold_of: Sequence[int]
    initialize: Initializer
    loop: LoopConfig
    folder: Path
    patients: Sequence[str]
    importance: Sequence[float] | None = None

    @property
    def training(self) -> NDArray[np.int64]:
        """Indices of the patches outside the fold that are trained on."""
        chosen = np.asarray(self.fold_of) != self.fold
        if self.importance is not None:
            chosen &= np.asarray(self.importance) > 0
        return np.flatnonzero(chosen)

    @property
    def validation(self) -> NDArray[np.int64]:
        """Indices of the patches in the fold."""
        return np.flatnonzero(np.asarray(self.fold_of) == self.fold)


class Samples(Protocol):
    """What a network is trained on; `TrainingArrays` are an example."""

    @property
    def counts(self) -> NDArray[np.float64]:
        """(N, 2) how much of each class a sample holds."""

    @property
    def digest(self) -> str:
        """Of everything in them."""

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        """The whole image (C, S, S) and its target."""


def train_network(
    task: Task,
    config: TaskConfig,
    loss: LossFunction,
    arrays: Samples,
    job: FoldJob,
    count: Callable[[Tensor, int], NDArray[np.int64]],
    crops: Dataset[tuple[Tensor, Tensor]],
    check: Callable[[], None] | None = None,
) -> SegmentationNetwork:
    """Train one network on the patches outside a fold, or load it where the folder has it already.

    Parameters
    ----------
    arrays : Samples
        Those of all folds, at `config.stored_downsampling`.
    count : callable
        (logits (classes, S, S) at the arrays' resolution, index) → (2, 3) TP, FP and FN of both classes in
        that sample; their F1s, pooled over the fold, are logged.
    crops : Dataset
        Random crops of the arrays, by `Draw`; see `crop_side`.
    check : callable, optional
        Says, and makes sure, that there is something to learn; by default of patients' pairs.

    Returns
    -------
    SegmentationNetwork
        In evaluation mode, on the CPU; its weights lie in `job.folder`/network.safetensors.

    Raises
    ------
    TrainingError
        If there is nothing to learn, or as `train` says.
    """
    folder, loop, training, validation = job.folder, job.loop, job.training, job.validation
    path = folder / NETWORK
    if path.exists():
        check_unchanged(path, arrays.digest)
        return load_network(config.network, path)
    if check:
        check()
    else:
        patients = len({job.patients[index] for index in training})
        what = f"{task} network of fold {job.fold}"
        check_learnable(what, arrays.counts[training], *LEARNED[task], patients)
    importance = None if job.importance is None else np.array(job.importance)[training]
    weights = balanced_weights(arrays.counts[training], importance)

    def choose(step: int) -> NDArray[np.int64]:
        return training[draw(weights, config.optimizer.batch, loop.seed, step)]

    torch.manual_seed(loop.seed)
    images = first_batches(crops, choose, config.optimizer.micro_batch)
    network = job.initialize(config.network, images).train()
    freeze_stages(network, config.optimizer.frozen_stages)
    if not torch.cuda.is_available():
        for encoder in network.encoders:
            # A tenth faster on the CPU; the decoder stays contiguous (see FullPrecision).
            encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def validate(current: nn.Module) -> dict[str, float]:
        device = next(current.parameters()).device
        # Whole patches are seen as the detector will show them, at the network's own scales.
        seeing = (
            ServedNetwork(cast(SegmentationNetwork, current)) if config.stored_downsampling == 1 else current
        )
        losses, counts = [], np.zeros((2, 3), np.int64)
        for index in validation.tolist():
            image, target = arrays.sample(index)
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=loop.bfloat16):
                logits = seeing(image[None].to(device)).float().cpu()
            losses.append(loss(logits, target[None]).item())
            counts += count(logits[0], index)
        first, second = precision_recall_f1(counts)[2]
        return {"validation_loss": float(np.mean(losses)), "validation_mean_f1": float((first + second) / 2)}

    trained = train(
        network,
        feed_from(crops, choose, loop.workers),
        loss,
        -(-len(training) // config.optimizer.batch),
        config.optimizer,
        loop,
        folder,
        validate if len(validation) else None,
        arrays.digest,
    )
    trained.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if is_first_process():
        save_network(cast(SegmentationNetwork, trained), path, data_fact(arrays.digest))
    wait_for_all()
    # After several processes, `trained` has layers that synchronize them; the file has not.
    return load_network(config.network, path)


def check_task(task: Task, config: TaskConfig) -> None:
    """Refuse a recipe whose network cannot be trained; UsageError names the settings."""
    check_trainable(config.network, config.coupling, f"{task}.")
    check_shared(config.optimizer.batch, config.optimizer.accumulation)
    if config.optimizer.micro_batch < 2:
        raise UsageError(
            f"{task}.optimizer: batch {config.optimizer.batch} in {config.optimizer.accumulation} parts: "
            "batch normalization needs at least two patches at a time; lower accumulation or raise batch"
        )
    if crop_side(config)[0] < 1:
        least = config.network.downsampling * architecture_of(config.network).multiple
        raise UsageError(
            f"{task}.augmentation.crop={config.augmentation.crop}: must be {least} at least for its "
            f"network, and patches have {PATCH_SIZE} pixels"
        )


def crop_side(config: TaskConfig) -> tuple[int, int]:
    """A crop's side in pixels at the network's resolution, and pixels of the stored patches to one of it."""
    downsampling, multiple = config.network.downsampling, architecture_of(config.network).multiple
    crop = min(config.augmentation.crop, PATCH_SIZE) // downsampling // multiple * multiple
    return crop, downsampling // config.stored_downsampling


def crops_of(config: TaskConfig, arrays: TrainingArrays, seed: int) -> CropDataset:
    """Random crops as the recipe has them."""
    return CropDataset(arrays, config.augmentation, *crop_side(config), seed)


def train_tissue(config: TaskConfig, arrays: TrainingArrays, job: FoldJob) -> SegmentationNetwork:
    """Train a tissue network."""

    def count(logits: Tensor, index: int) -> NDArray[np.int64]:
        # Both as the annotation has them: 1 background, 2 cancer area, 255 unknown.
        annotated = (np.array(arrays.targets[index]) + 1).astype(np.uint8)
        annotated[annotated == 0] = TISSUE_UNKNOWN
        return tissue_counts(tissue_labels_of(logits.softmax(0).numpy()), annotated)

    crops = crops_of(config, arrays, job.loop.seed)
    return train_network("tissue", config, tissue_cross_entropy, arrays, job, count, crops)


def train_cells(
    config: TaskConfig, arrays: TrainingArrays, points: Sequence[CellPoints], job: FoldJob
) -> SegmentationNetwork:
    """Train a cell network; `points` are the annotated cells of every patch."""
    crops = crops_of(config, arrays, job.loop.seed)
    return train_network(
        "cells", config, cell_loss(config.target), arrays, job, counting_cells(points), crops
    )


def counting_cells(points: Sequence[CellPoints]) -> Callable[[Tensor, int], NDArray[np.int64]]:
    """Counts the cells in the first three maps of logits against a patch's annotated ones."""

    def count(logits: Tensor, index: int) -> NDArray[np.int64]:
        probability = logits[None, : len(CELL_CLASSES)].softmax(1)
        full = nn.functional.interpolate(probability, (PATCH_SIZE, PATCH_SIZE), mode="bilinear")[0]
        return pair_counts(find_cells(full.numpy(), CURVE_RULE), points[index])

    return count


def predict_tissue(
    network: SegmentationNetwork, images: Iterable[NDArray[np.uint8]]
) -> Iterable[NDArray[np.float32]]:
    """Class probabilities over whole tissue patches, one view, as the detector computes them.

    Parameters
    ----------
    network : SegmentationNetwork
    images : iterable of (1024, 1024, 3) uint8
        Tissue patches.

    Yields
    ------
    (2, 1024, 1024) float32
    """
    device = own_device()
    served = ServedNetwork(network).to(device).eval()
    for image in images:
        with torch.inference_mode():
            patch = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None].to(device) / 255
            probability = served(patch).softmax(1)[0].cpu().numpy()
        yield probability
