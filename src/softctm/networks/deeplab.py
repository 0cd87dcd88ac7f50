"""DeepLabV3+ from segmentation_models_pytorch, with encoders that may end at layer3.

The paper uses DeepLabV3+ with a ResNet50 encoder for tissue and for cells (arXiv 2312.12151).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from softctm.networks.network_config import NetworkConfig
from softctm.networks.smp_network import SmpNetwork


class FullPrecision(nn.Module):
    """Runs a module in float32 inside an autocast region.

    The dilated depthwise convolutions of the ASPP have wrong bfloat16 gradients on the CPU.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Apply the wrapped module; float32 in and out where autocast is on."""
        if not torch.is_autocast_enabled(x.device.type):
            return cast(Tensor, self.inner(x))
        with torch.autocast(x.device.type, enabled=False):
            return cast(Tensor, self.inner(x.float()))


class DeepLab(SmpNetwork):
    """DeepLabV3+; the tissue joins at the input."""

    multiple = 16

    def _build(self, config: NetworkConfig, encoder_weights: str | None) -> nn.Module:
        import segmentation_models_pytorch as smp

        body = smp.DeepLabV3Plus(
            config.encoder,
            encoder_weights=encoder_weights,
            encoder_depth=config.depth,
            encoder_output_stride=16,
            in_channels=3 + config.context_channels,
            classes=config.classes,
            decoder_channels=config.decoder_channels,
            decoder_aspp_dropout=config.dropout,
        )
        body.decoder.aspp = FullPrecision(body.decoder.aspp)
        return cast(nn.Module, body)


def decode(body: Any, features: Sequence[Tensor], deepest: Tensor) -> Tensor:
    """The decoder of smp's DeepLabV3+ behind its ASPP: what its head makes logits of.

    Parameters
    ----------
    body : smp's network
    features : sequence of Tensor
        Of its encoder, from the input on.
    deepest : (B, C, h, w)
        What the ASPP gave, perhaps changed.
    """
    upsampled = body.decoder.up(deepest)
    skipped = body.decoder.block1(features[2]).to(upsampled.dtype)
    return cast(Tensor, body.decoder.block2(torch.cat([upsampled, skipped], 1)))
