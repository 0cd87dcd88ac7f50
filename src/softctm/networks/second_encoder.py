"""DeepLabV3+ with a second encoder for the large field of view: OCELOT's baseline (MFoVCE-Net).

The network learns the cell map alone (Ryu et al., arXiv 2303.13110, compare their models with such a one).
Where the fields of view are fused, and how, is chosen here: the second encoder's deepest features are cut at
the window, enlarged, and join the first one's before the ASPP by a 1 × 1 convolution.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from softctm.networks.deeplab import DeepLab, decode
from softctm.networks.injection import joining
from softctm.networks.joint import PairNetwork
from softctm.networks.network_config import NetworkConfig
from softctm.networks.window import tissue_to_cells


class SecondEncoder(PairNetwork):
    """The tissue patch is seen, but no tissue map is learned."""

    couplings = ("image",)
    multiple = DeepLab.multiple

    def __init__(self, config: NetworkConfig, encoder_weights: str | None = None) -> None:
        super().__init__(config)
        branch = replace(config, context_channels=0)
        self.cells = DeepLab(branch, encoder_weights)
        self.tissue = nn.ModuleDict({"encoder": DeepLab(branch, encoder_weights).encoder})
        width = int(self.cells.body.encoder.out_channels[-1])
        self.join = joining(width, width)

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        """Of the cell patch and of the tissue patch."""
        return (self.cells.encoder, self.tissue["encoder"])

    def _maps(self, cell: Tensor, tissue: Tensor, window: Tensor) -> tuple[Tensor, ...]:
        body = self.cells.body
        near = body.encoder(self.cells.normalized(cell))
        far = self.tissue["encoder"](self.cells.normalized(tissue))[-1]
        seen = tissue_to_cells(far, window, (near[-1].shape[-2], near[-1].shape[-1]))
        deepest = body.decoder.aspp(self.join(torch.cat([near[-1], seen], 1)))
        return (body.segmentation_head(decode(body, near, deepest)),)
