"""Networks that see both patches of a pair at once, and the first of them: the tissue prediction, injected.

OCELOT trains a tissue branch and a cell branch end to end (Ryu et al., arXiv 2303.13110, section 4). Here the
sum of both losses moves all weights, those of the tissue branch also by what it tells the cell branch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from softctm.model.manifest import AROUND
from softctm.model.tasks import TISSUE_CLASSES
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.network_config import NetworkConfig
from softctm.networks.smp_network import SmpNetwork
from softctm.networks.window import tissue_to_cells, window_of

PAIR_CHANNELS = len(AROUND)
"""What joins the cell patch's RGB: the tissue patch's, and the plane that shows the window."""


class PairNetwork(SegmentationNetwork):
    """Base: cell patch, tissue patch and window in, logits of the cell map and perhaps of the tissue map out.

    Shapes: (B, 3 + 4, H, W) float32 → (B, classes, H, W). The four are RGB of the tissue patch, as many
    pixels of four times the size, and 1 where the cell patch lies in it, 0 elsewhere. So views of a pair are
    views of one array, the window among them.

    Attributes
    ----------
    cells : SmpNetwork
        The cell branch. What looks at the tissue patch is beside it, under the name `tissue`, by which it may
        be given a learning rate of its own.
    """

    couplings = ("joint",)
    cells: SmpNetwork

    def forward(self, x: Tensor) -> Tensor:
        """Logits; see the class."""
        return torch.cat(self._maps(x[:, :3], x[:, 3:6], window_of(x[:, 6:7])), 1)

    def _maps(self, cell: Tensor, tissue: Tensor, window: Tensor) -> tuple[Tensor, ...]:
        """Logits of each head; images as they came, and the window as `softctm.networks.window` has it."""
        raise NotImplementedError


class JointNetwork(PairNetwork):
    """Base: a tissue branch beside the cell branch, which gives a map of its own.

    Attributes
    ----------
    tissue : SmpNetwork
        The tissue branch.
    """

    tissue: SmpNetwork

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        """Of both branches."""
        return (self.cells.encoder, self.tissue.encoder)

    @property
    def heads(self) -> dict[str, int]:
        """The cell map, then the tissue map."""
        return {"cells": self.config.classes - len(TISSUE_CLASSES), "tissue": len(TISSUE_CLASSES)}


class InjectedPrediction(JointNetwork):
    """The tissue branch's probabilities in the window are the context of a cell network."""

    cell_trunk: ClassVar[type[SmpNetwork]]
    tissue_trunk: ClassVar[type[SmpNetwork]]

    def __init__(self, config: NetworkConfig, encoder_weights: str | None = None) -> None:
        super().__init__(config)
        tissue = len(TISSUE_CLASSES)
        branch = replace(config, context_channels=tissue, classes=config.classes - tissue)
        self.cells = self.cell_trunk(branch, encoder_weights)
        branch = replace(config, context_channels=0, classes=tissue)
        self.tissue = self.tissue_trunk(branch, encoder_weights)

    def _maps(self, cell: Tensor, tissue: Tensor, window: Tensor) -> tuple[Tensor, ...]:
        logits = self.tissue(tissue)
        size = (cell.shape[-2], cell.shape[-1])
        context = tissue_to_cells(logits.float().softmax(1), window, size)
        return self.cells(torch.cat([cell, context], 1)), logits


def injected(cell_trunk: type[SmpNetwork], tissue_trunk: type[SmpNetwork]) -> type[InjectedPrediction]:
    """The network whose branches are these."""
    members = {"cell_trunk": cell_trunk, "tissue_trunk": tissue_trunk, "multiple": cell_trunk.multiple}
    return type(f"Injected{cell_trunk.__name__}", (InjectedPrediction,), members)
