"""DeepLabV3+ that sees the tissue late: OCELOT's ways of joining it (Ryu et al., arXiv 2303.13110).

The input is that of `DeepLab`, RGB and tissue channels, which is their way of joining at the input. Here RGB
alone passes the encoder, and the tissue joins features further on:

- after the encoder: beside its deepest features, before the ASPP ("inter-1");
- after the ASPP: beside what it gives ("inter-2");
- after the decoder: beside the logits, by a last 1 × 1 convolution ("output").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from softctm.networks.deeplab import DeepLab, decode
from softctm.networks.network_config import NetworkConfig


class LateDeepLab(DeepLab):
    """Base: the encoder sees RGB, `_logits` decides where the tissue joins."""

    def __init__(self, config: NetworkConfig, encoder_weights: str | None = None) -> None:
        super().__init__(replace(config, context_channels=0), encoder_weights)
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, run, return logits."""
        context = (x[:, 3:] - 0.5) / 0.5
        features = self.body.encoder(self.normalized(x[:, :3]))
        return self._logits(features, context)

    def _logits(self, features: Sequence[Tensor], context: Tensor) -> Tensor:
        raise NotImplementedError

    def _decoded(self, features: Sequence[Tensor], deepest: Tensor) -> Tensor:
        """Logits; `deepest` is what comes from the ASPP."""
        return cast(Tensor, self.body.segmentation_head(decode(self.body, features, deepest)))


class DeepLabAfterEncoder(LateDeepLab):
    """The tissue joins between encoder and ASPP."""

    def __init__(self, config: NetworkConfig, encoder_weights: str | None = None) -> None:
        super().__init__(config, encoder_weights)
        width = int(self.body.encoder.out_channels[-1])
        # A projection back to the encoder's width keeps the ASPP's shape: a cell-only network's fits it.
        self.join = joining(width, config.context_channels)

    def _logits(self, features: Sequence[Tensor], context: Tensor) -> Tensor:
        joined = self.join(_beside(features[-1], context))
        return self._decoded(features, self.body.decoder.aspp(joined))


class DeepLabAfterASPP(LateDeepLab):
    """The tissue joins between ASPP and the rest of the decoder."""

    def __init__(self, config: NetworkConfig, encoder_weights: str | None = None) -> None:
        super().__init__(config, encoder_weights)
        width = config.decoder_channels
        self.join = joining(width, config.context_channels)

    def _logits(self, features: Sequence[Tensor], context: Tensor) -> Tensor:
        deepest = self.body.decoder.aspp(features[-1])
        return self._decoded(features, self.join(_beside(deepest, context)))


class DeepLabAfterDecoder(LateDeepLab):
    """The tissue joins the logits."""

    def __init__(self, config: NetworkConfig, encoder_weights: str | None = None) -> None:
        super().__init__(config, encoder_weights)
        self.join = joining(config.classes, config.context_channels)

    def _logits(self, features: Sequence[Tensor], context: Tensor) -> Tensor:
        logits = self._decoded(features, self.body.decoder.aspp(features[-1]))
        return cast(Tensor, self.join(torch.cat([logits, context.to(logits.dtype)], 1)))


def _beside(features: Tensor, context: Tensor) -> Tensor:
    """Features and the context, averaged down to their size."""
    if not context.shape[1]:
        return features
    pooled = functional.avg_pool2d(context, context.shape[-1] // features.shape[-1])
    return torch.cat([features, pooled.to(features.dtype)], 1)


@torch.no_grad()
def joining(width: int, extra: int) -> nn.Conv2d:
    """A 1 × 1 convolution from `width` + `extra` channels to `width`.

    To begin with the first `width` channels pass as they are, and the others wait for training.
    """
    join = nn.Conv2d(width + extra, width, 1)
    join.weight.zero_()
    join.weight[torch.arange(width), torch.arange(width)] = 1
    assert join.bias is not None
    join.bias.zero_()
    return join
