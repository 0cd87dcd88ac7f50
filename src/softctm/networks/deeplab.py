"""DeepLabV3+ from segmentation_models_pytorch, with encoders that may end at layer3.

The paper uses DeepLabV3+ with a ResNet50 encoder for tissue and for cells (arXiv 2312.12151).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.config import NetworkConfig
from softctm.networks.encoder_weights import load_encoder, stride_early, strides_early

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_STRIDES, _EARLY = "encoder_strides", "in the first convolution"


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


class DeepLab(SegmentationNetwork):
    """DeepLabV3+; see `SegmentationNetwork` for what goes in and out."""

    multiple = 16
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
        import segmentation_models_pytorch as smp

        from_file = encoder_weights is not None and encoder_weights.endswith(".safetensors")
        self.body = smp.DeepLabV3Plus(
            config.encoder,
            encoder_weights=None if from_file else encoder_weights,
            encoder_depth=config.depth,
            encoder_output_stride=16,
            in_channels=3 + config.context_channels,
            classes=config.classes,
            decoder_channels=config.decoder_channels,
        )
        if config.depth < 5 and hasattr(self.body.encoder, "layer4"):
            del self.body.encoder.layer4
        if from_file:
            load_encoder(self.body.encoder, Path(cast(str, encoder_weights)))
        self.body.decoder.aspp = FullPrecision(self.body.decoder.aspp)
        padding = config.context_channels
        self.register_buffer("mean", torch.tensor([*IMAGENET_MEAN, *[0.5] * padding]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor([*IMAGENET_STD, *[0.5] * padding]).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, run, return logits."""
        return cast(Tensor, self.body((x - self.mean) / self.std))

    @property
    def encoder(self) -> nn.Module:
        """The ResNet."""
        return cast(nn.Module, self.body.encoder)

    def facts(self) -> dict[str, str]:
        """Where the encoder's strides sit: the same weights with another place are another network."""
        return {_STRIDES: _EARLY} if strides_early(self.encoder) else {}

    def apply_facts(self, facts: Mapping[str, str]) -> None:
        """Move the strides to where they were."""
        if facts.get(_STRIDES) == _EARLY:
            stride_early(self.encoder)
