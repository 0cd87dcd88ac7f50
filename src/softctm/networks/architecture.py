"""What every architecture has in common: the contract that training, export and the tests rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from softctm.networks.encoder_weights import stride_early, strides_early
from softctm.networks.network_config import NetworkConfig

_STRIDES, _EARLY = "encoder_strides", "in the first convolution"


class SegmentationNetwork(nn.Module):
    """Base of all architectures: RGB in [0, 1] and context channels in, logits out.

    Shapes: (B, 3 + context_channels, H, W) float32 → (B, classes, H, W), H and W multiples of `multiple`, at
    the network's own resolution. What the network needs beyond that, such as the encoder's normalization, is
    inside it. Parameters of the pretrained encoder have ".encoder." in their names: they may be given a
    learning rate of their own.

    Parameters
    ----------
    config : NetworkConfig
    encoder_weights : str, optional
        A safetensors file, a name such as "imagenet", or None for random weights.
    """

    multiple: ClassVar[int] = 1
    """What the sides of the input must be divisible by."""

    couplings: ClassVar[tuple[str, ...]] = ("none", "predicted", "annotated")
    """What cells and tissue may have to do with each other where it is trained; see `TaskConfig.coupling`."""

    def __init__(self, config: NetworkConfig, encoder_weights: str | None = None) -> None:
        super().__init__()
        self.config = config

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        """The pretrained parts."""
        return ()

    @property
    def heads(self) -> dict[str, int]:
        """Output name → number of its classes, in the order of the channels."""
        return {"logits": self.config.classes}

    def forward(self, x: Tensor) -> Tensor:
        """Logits; see the class."""
        raise NotImplementedError

    def facts(self) -> dict[str, str]:
        """What must be kept beside the weights because they do not say it themselves.

        It is where the encoders' strides sit: the same weights with another place are another network.
        """
        return {_STRIDES: _EARLY} if any(strides_early(encoder) for encoder in self.encoders) else {}

    def apply_facts(self, facts: Mapping[str, str]) -> None:
        """Make the network what `facts` of another one said it was."""
        if facts.get(_STRIDES) == _EARLY:
            for encoder in self.encoders:
                stride_early(encoder)
