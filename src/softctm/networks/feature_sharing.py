"""Two DeepLabV3+ that share features: OCELOT's cell-tissue feature sharing (Ryu et al., arXiv 2303.13110).

Neither branch sees the other's prediction. Features of the cell branch are averaged down and put into their
window of the tissue branch's; features of the tissue branch are cut at the window and enlarged. Each joins
the other branch's own by a 1 × 1 convolution: after the encoder from cells to tissue, after the ASPP and
after the decoder from tissue to cells.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from softctm.model.tasks import TISSUE_CLASSES
from softctm.networks.deeplab import DeepLab, decode
from softctm.networks.injection import joining
from softctm.networks.joint import JointNetwork
from softctm.networks.network_config import NetworkConfig
from softctm.networks.window import cells_to_tissue, tissue_to_cells


class FeatureSharing(JointNetwork):
    """Before training the branches are two separate networks; what they exchange waits at weights of zero."""

    multiple = DeepLab.multiple

    def __init__(self, config: NetworkConfig, encoder_weights: str | None = None) -> None:
        super().__init__(config)
        branch = replace(config, context_channels=0)
        number = len(TISSUE_CLASSES)
        self.cells = DeepLab(replace(branch, classes=config.classes - number), encoder_weights)
        self.tissue = DeepLab(replace(branch, classes=number), encoder_weights)
        deepest, decoded = int(self.cells.body.encoder.out_channels[-1]), config.decoder_channels
        self.after_encoder = joining(deepest, deepest)
        self.after_aspp = joining(decoded, decoded)
        self.after_decoder = joining(decoded, decoded)

    def _maps(self, cell: Tensor, tissue: Tensor, window: Tensor) -> tuple[Tensor, ...]:
        cells, around = self.cells.body, self.tissue.body
        near = cells.encoder(self.cells.normalized(cell))
        far = around.encoder(self.tissue.normalized(tissue))

        given = cells_to_tissue(near[-1], window, _size(far[-1]))
        far_deepest = around.decoder.aspp(self.after_encoder(torch.cat([far[-1], given], 1)))
        near_deepest = cells.decoder.aspp(near[-1])
        near_deepest = self.after_aspp(_beside(near_deepest, far_deepest, window))

        far_decoded = decode(around, far, far_deepest)
        near_decoded = decode(cells, near, near_deepest)
        near_decoded = self.after_decoder(_beside(near_decoded, far_decoded, window))
        return cells.segmentation_head(near_decoded), around.segmentation_head(far_decoded)


def _beside(near: Tensor, far: Tensor, window: Tensor) -> Tensor:
    """Features of the cell branch, then what the tissue branch has in the window."""
    return torch.cat([near, tissue_to_cells(far, window, _size(near)).to(near.dtype)], 1)


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]
