"""U-Net (Ronneberger et al., arXiv 1505.04597) around a pretrained encoder, from smp."""

from __future__ import annotations

from typing import cast

from torch import nn

from softctm.networks.network_config import NetworkConfig
from softctm.networks.smp_network import SmpNetwork

_NARROWEST = 24
"""Channels of the finest stages at least."""


class UNet(SmpNetwork):
    """U-Net; the decoder begins `decoder_channels` wide and is half as wide at each finer stage."""

    multiple = 32

    @staticmethod
    def _widths(config: NetworkConfig) -> list[int]:
        """Channels of the decoder's stages, from coarse to fine."""
        return [max(config.decoder_channels >> stage, _NARROWEST) for stage in range(config.depth)]

    def _build(self, config: NetworkConfig, encoder_weights: str | None) -> nn.Module:
        import segmentation_models_pytorch as smp

        return cast(
            nn.Module,
            smp.Unet(
                config.encoder,
                encoder_weights=encoder_weights,
                encoder_depth=config.depth,
                decoder_channels=self._widths(config),
                in_channels=3 + config.context_channels,
                classes=config.classes,
            ),
        )
