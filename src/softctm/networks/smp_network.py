"""Networks that segmentation_models_pytorch builds, made to take context channels and encoders from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.encoder_weights import load_encoder
from softctm.networks.network_config import NetworkConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SmpNetwork(SegmentationNetwork):
    """Base: the library's network is `body`; see `SegmentationNetwork` for what goes in and out."""

    body: Any  # the library's, which has no types
    mean: Tensor
    std: Tensor

    def __init__(self, config: NetworkConfig, encoder_weights: str | None = None) -> None:
        """Build the network; `encoder_weights` is a safetensors file, a library name ("imagenet") or None.

        Raises
        ------
        ModelError
            If the weights cannot be read or do not fit the encoder.
        """
        super().__init__(config)
        from_file = encoder_weights is not None and encoder_weights.endswith(".safetensors")
        self.body = self._build(config, None if from_file else encoder_weights)
        if config.depth < 5 and hasattr(self.encoder, "layer4"):
            del self.encoder.layer4
        if from_file:
            load_encoder(self.encoder, Path(cast(str, encoder_weights)))
        padding = config.context_channels
        self.register_buffer("mean", torch.tensor([*IMAGENET_MEAN, *[0.5] * padding]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor([*IMAGENET_STD, *[0.5] * padding]).view(1, -1, 1, 1))

    def _build(self, config: NetworkConfig, encoder_weights: str | None) -> nn.Module:
        """The library's network for 3 + `config.context_channels` channels."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, run, return logits."""
        return cast(Tensor, self.body(self.normalized(x)))

    def normalized(self, x: Tensor) -> Tensor:
        """What the encoder was pretrained on: each channel less its mean, over its standard deviation."""
        return (x - self.mean) / self.std

    @property
    def encoder(self) -> nn.Module:
        """The library's encoder."""
        return cast(nn.Module, self.body.encoder)

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        """The library's one."""
        return (self.encoder,)
