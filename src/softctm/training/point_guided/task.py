"""Training of one point-guided network, from images to weights; resuming where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.freezing import freeze_stages
from softctm.networks.network_config import NetworkConfig
from softctm.networks.network_table import build_network
from softctm.networks.point_guided import GUIDES, PointGuided
from softctm.networks.trainable import check_crop, check_trainable
from softctm.networks.weights import load_network, save_network
from softctm.training.config import OptimizerConfig
from softctm.training.feeding import feed_from, fixed_batches
from softctm.training.finished import check_unchanged, data_fact
from softctm.training.loop import LoopConfig, lay_out_for_processors, train
from softctm.training.nuclei.augment import NucleiAugmentationConfig
from softctm.training.nuclei.data import TrainingImage
from softctm.training.point_guided.data import GuidedCrops
from softctm.training.processes import check_shared, is_first_process, wait_for_all
from softctm.training.run_folder import NETWORK
from softctm.training.sampling import draw

_VALIDATED = 512
"""Crops that a validation looks at, at most."""


@dataclass(frozen=True)
class PointGuidedConfig:
    """A recipe; crops are of pixels of 0.2 µm. An epoch sees as many nuclei as there are."""

    network: NetworkConfig
    optimizer: OptimizerConfig
    augmentation: NucleiAugmentationConfig

    def check(self) -> None:
        """Make sure that values fit each other; UsageError names those that do not."""
        check_shared(self.optimizer.batch, self.optimizer.accumulation)
        check_trainable(self.network)
        check_crop(self.network, self.augmentation.crop)


COMPACT = PointGuidedConfig(
    NetworkConfig(
        "resnet18",
        depth=4,
        decoder_channels=128,
        downsampling=2,
        architecture="unet",
        context_channels=GUIDES,
        classes=1,
    ),
    OptimizerConfig("adamw", 2e-3, 1e-2, "one-cycle", epochs=1, batch=16, encoder_factor=0.25, ema=0.99),
    NucleiAugmentationConfig(crop=96),
)
"""Made for two processor cores."""


def mask_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy plus 1 − Dice of each crop, as in NuClick (arXiv 2005.14511), without weights of pixels.

    Parameters
    ----------
    logits, mask : (B, 1, S, S)
        Scores before the sigmoid; 1 in the nucleus, 0 elsewhere.
    """
    logits = logits.float()
    probability = logits.sigmoid()
    overlap = (probability * mask).sum((1, 2, 3))
    dice = (2 * overlap + 1) / (probability.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
    return functional.binary_cross_entropy_with_logits(logits, mask) + (1 - dice).mean()


def train_point_guided(
    config: PointGuidedConfig,
    images: Sequence[TrainingImage],
    held_out: Sequence[TrainingImage],
    loop: LoopConfig,
    folder: Path,
    encoder_weights: str | None = None,
) -> SegmentationNetwork:
    """Train one network, or load it where the folder has it already.

    Parameters
    ----------
    config : PointGuidedConfig
    images, held_out : sequence of TrainingImage
        At 0.2 mpp: what is learned from, and what learning curves are drawn of.
    loop : LoopConfig
    folder : Path
        Gets checkpoints, metrics and `network.safetensors`.
    encoder_weights : str, optional
        See `SegmentationNetwork`.

    Returns
    -------
    SegmentationNetwork
        In evaluation mode, on the CPU.

    Raises
    ------
    TrainingError
        As `softctm.training.loop.train`.
    InputError
        If there is no nucleus to learn from.
    """
    crops, others = (GuidedCrops(part, config.augmentation, loop.seed) for part in (images, held_out))
    path = folder / NETWORK
    if path.exists():
        check_unchanged(path, crops.digest)
        return load_network(config.network, path)
    batch = config.optimizer.batch

    def choose(step: int) -> NDArray[np.int64]:
        return draw(crops.weights, batch, loop.seed, step)

    def validate(current: nn.Module) -> dict[str, float]:
        return _validated(current, others, batch, loop.bfloat16)

    torch.manual_seed(loop.seed)
    segmentation = build_network(config.network, encoder_weights)
    freeze_stages(segmentation, config.optimizer.frozen_stages)
    network = PointGuided(segmentation)
    lay_out_for_processors(network)
    trained = train(
        network,
        feed_from(crops, choose, loop.workers),
        mask_loss,
        -(-len(crops) // batch),
        config.optimizer,
        loop,
        folder,
        validate if others.has_nuclei else None,
        crops.digest,
    )
    trained.cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    result = cast(PointGuided, trained).network.eval()
    if is_first_process():
        save_network(result, path, data_fact(crops.digest))
    wait_for_all()
    return result


def _validated(network: nn.Module, crops: GuidedCrops, batch: int, bfloat16: bool) -> dict[str, float]:
    """Loss and mean IoU over crops of held-out images, the same ones every time."""
    device = next(network.parameters()).device
    losses, overlaps = [], []
    for images, masks in fixed_batches(crops, _VALIDATED, batch):
        images, masks = images.to(device), masks.to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            logits = network(images)
        losses.append(mask_loss(logits, masks).item())
        found, true = logits > 0, masks > 0
        both, either = ((found & true).sum((1, 2, 3)), (found | true).sum((1, 2, 3)))
        overlaps.append((both / either.clamp(min=1)).cpu())
    return {"validation_loss": float(np.mean(losses)), "validation_iou": float(torch.cat(overlaps).mean())}
