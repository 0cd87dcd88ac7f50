"""Training networks that see both patches: one loss for each map they learn, added up."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from softctm.errors import UsageError
from softctm.model.tasks import CELL_CLASSES
from softctm.networks.architecture import SegmentationNetwork
from softctm.points import CellPoints
from softctm.training.config import Preset, TargetConfig
from softctm.training.fold_training import FoldJob, counting_cells, crop_side, train_network
from softctm.training.losses import LossFunction, cell_loss, tissue_cross_entropy
from softctm.training.pair_arrays import PairArrays, PairCrops


def check_common_crops(preset: Preset) -> None:
    """Refuse crops of tissue patches that networks of pairs cannot have; UsageError names the setting."""
    tissue, cells = preset.tissue.augmentation, preset.cells.augmentation
    if preset.cells.sees_pair and tissue.crop != cells.crop:
        raise UsageError(
            f"tissue.augmentation.crop={tissue.crop}: a network that sees both patches has crops of one "
            f"size, cells.augmentation.crop={cells.crop}"
        )
    if preset.cells.sees_pair and tissue.magnified != 1:
        raise UsageError(
            f"tissue.augmentation.magnified={tissue.magnified:g}: a network that sees both patches keeps "
            "tissue at its own resolution; leave it at 1"
        )


def pair_loss(target: TargetConfig) -> LossFunction:
    """The cell network's loss and, where logits hold a tissue map, the tissue network's, added.

    Logits are (B, 3 or 5, H, W); targets (B, 4, H, W), as `softctm.training.pair_arrays.joined` has them.
    """
    of_cells, cells = cell_loss(target), len(CELL_CLASSES)

    def loss(logits: Tensor, wanted: Tensor) -> Tensor:
        value: Tensor = of_cells(logits[:, :cells], wanted[:, :cells])
        if logits.shape[1] > cells:
            value = value + tissue_cross_entropy(logits[:, cells:], wanted[:, cells].long())
        return value

    return loss


def train_pairs(
    preset: Preset, arrays: PairArrays, points: Sequence[CellPoints], job: FoldJob
) -> SegmentationNetwork:
    """Train a network that sees both patches; `points` are the annotated cells of every cell patch."""
    config = preset.cells
    crops = PairCrops(
        arrays, config.augmentation, preset.tissue.augmentation, *crop_side(config), job.loop.seed
    )
    loss = pair_loss(config.target)
    return train_network("cells", config, loss, arrays, job, counting_cells(points), crops)
