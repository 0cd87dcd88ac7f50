"""Networks that segmentation_models_pytorch builds, made to take context channels and encoders from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from softctm.errors import ModelError, UsageError, one_line
from softctm.extras import imported
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
        MissingPackageError
            If the library cannot be imported.
        UsageError
            If the weights are neither such a file nor known to the library.
        ModelError
            If they cannot be read or downloaded, or do not fit the encoder.
        """
        super().__init__(config)
        from_file = encoder_weights is not None and encoder_weights.endswith(".safetensors")
        name = None if from_file else encoder_weights
        _check_known(config.encoder, name)
        try:
            self.body = self._build(config, name)
        except OSError as error:  # Hugging Face's are of this kind
            raise ModelError(
                f"encoder weights '{name}' for {config.encoder}: cannot be downloaded ({one_line(error)}); "
                "name a .safetensors file by --encoder-weights"
            ) from None
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


def _check_known(encoder: str, weights: str | None) -> None:
    """Refuse a name of weights that the library does not know for one of its own encoders."""
    imported("torchvision")  # by itself: the library's import would not say that it does not fit
    smp = imported("segmentation_models_pytorch")
    known = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {})
    if weights and known and weights not in known:
        raise UsageError(
            f"encoder weights '{weights}': unknown for {encoder}; --encoder-weights takes a .safetensors "
            f"file, or {' or '.join(known)}"
        )
