"""What every architecture has in common: the contract that training, export and the tests rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from softctm.networks.network_config import NetworkConfig


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

    def __init__(self, config: NetworkConfig, encoder_weights: str | None = None) -> None:
        super().__init__()
        self.config = config

    @property
    def encoder(self) -> nn.Module | None:
        """The pretrained part; None where there is none."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Logits; see the class."""
        raise NotImplementedError

    def facts(self) -> dict[str, str]:
        """What must be kept beside the weights because they do not say it themselves."""
        return {}

    def apply_facts(self, facts: Mapping[str, str]) -> None:
        """Make the network what `facts` of another one said it was."""
