"""SegFormer (Xie et al., arXiv 2105.15203) with encoders mit_b0 to mit_b5, from smp."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from softctm.errors import UsageError
from softctm.networks.network_config import NetworkConfig
from softctm.networks.smp_network import SmpNetwork


class SegFormer(SmpNetwork):
    """A hierarchical transformer with a decoder of linear layers; its depth is always 5."""

    multiple = 32

    def _build(self, config: NetworkConfig, encoder_weights: str | None) -> nn.Module:
        import segmentation_models_pytorch as smp

        if not config.encoder.startswith("mit_") or config.depth != 5:
            raise UsageError(
                f"architecture segformer with encoder {config.encoder} of depth {config.depth}: "
                "takes an encoder mit_b0 to mit_b5 of depth 5"
            )
        body = smp.Segformer(
            config.encoder,
            encoder_weights=encoder_weights,
            encoder_depth=config.depth,
            decoder_segmentation_channels=config.decoder_channels,
            classes=config.classes,
        )
        embedding = body.encoder.patch_embed1
        embedding.proj = _wider(embedding.proj, config.context_channels)
        return cast(nn.Module, body)


@torch.no_grad()
def _wider(convolution: nn.Conv2d, extra: int) -> nn.Conv2d:
    """The convolution with more input channels, whose weights start at zero as in `load_encoder`."""
    if not extra:
        return convolution
    channels = convolution.in_channels
    wider = nn.Conv2d(
        channels + extra,
        convolution.out_channels,
        cast(tuple[int, int], convolution.kernel_size),
        cast(tuple[int, int], convolution.stride),
        cast(tuple[int, int], convolution.padding),
    )
    wider.weight.zero_()
    wider.weight[:, :channels] = convolution.weight
    assert wider.bias is not None
    assert convolution.bias is not None
    wider.bias.copy_(convolution.bias)
    return wider
