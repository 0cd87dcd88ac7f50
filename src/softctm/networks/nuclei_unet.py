"""A U-Net for nuclei, whose maps are read at the resolution at which they are decided.

Where a nucleus is and where it ends asks for pixels; what it is asks for channels and surroundings. So types
are read at a quarter of the resolution, by a head of their own, and enlarged. Two logits and two distances
are read one stage later, at half the resolution, for each of the four pixels that a place stands for.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from softctm.errors import UsageError
from softctm.networks.network_config import NetworkConfig
from softctm.networks.unet import UNet

WHERE = 4
"""Maps of where nuclei are: logits of background and nucleus, horizontal and vertical distance."""


class NucleiUNet(UNet):
    """U-Net (Ronneberger et al., arXiv 1505.04597) without its finest stage; `WHERE` + types logits."""

    def __init__(self, config: NetworkConfig, encoder_weights: str | None = None) -> None:
        """As `SmpNetwork`; UsageError, too, if there is no type or the encoder has too few stages."""
        types = config.classes - WHERE
        if types < 1 or config.depth < 3:
            raise UsageError(
                f"architecture {config.architecture}: needs types of nuclei, and a depth of at least 3"
            )
        super().__init__(config, encoder_weights)
        coarse, fine = self._widths(config)[-3:-1]
        self.where_head = nn.Sequential(nn.Conv2d(fine, 4 * WHERE, 3, padding=1), nn.PixelShuffle(2))
        self.type_head = nn.Sequential(
            nn.Conv2d(coarse, coarse, 3, padding=1, bias=False),
            nn.BatchNorm2d(coarse),
            nn.ReLU(inplace=True),
            nn.Conv2d(coarse, types, 1),
        )

    def _build(self, config: NetworkConfig, encoder_weights: str | None) -> nn.Module:
        body = cast(Any, super()._build(config, encoder_weights))
        body.decoder.blocks = body.decoder.blocks[:-1]
        del body.segmentation_head
        return cast(nn.Module, body)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, run, return logits and distances."""
        deepest, *skips = self.body.encoder(self.normalized(x))[:0:-1]
        stages = [deepest]
        for index, block in enumerate(self.body.decoder.blocks):
            skip = skips[index] if index < len(skips) else None
            rows, columns = (2 * side for side in stages[-1].shape[-2:])
            stages.append(block(stages[-1], rows, columns, skip_connection=skip))
        types = functional.interpolate(self.type_head(stages[-2]), size=x.shape[-2:], mode="bilinear")
        return torch.cat([self.where_head(stages[-1]), types], 1)
