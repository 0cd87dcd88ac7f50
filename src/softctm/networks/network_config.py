"""What a network is made of; needs no PyTorch, so that presets can be listed without it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from softctm.networks.ranges import AT_LEAST_ONE, Range, check_ranges


@dataclass(frozen=True)
class NetworkConfig:
    """One network: its architecture, its size, what goes in and what comes out.

    Attributes
    ----------
    encoder : str
        Name in segmentation_models_pytorch, such as "resnet18".
    depth : int
        Stages of the encoder: 4 ends a ResNet at layer3 (output stride 16), 5 at layer4.
    decoder_channels : int
        Width of the decoder.
    downsampling : int
        The network works at 1 / downsampling of its input's resolution: 2 is 0.4 µm per pixel for cells,
        1.6 for tissue.
    scales : tuple of float
        Multi-scale inference: magnifications of that resolution at which a trained network sees a patch,
        each in 0 … 4 (0 excluded); the logits of all scales are averaged.
    architecture : str
        Name in `softctm.networks.network_table.ARCHITECTURES`.
    dropout : float
        Share of what the ASPP of DeepLabV3+ gives that is left out at random in training, 0 … 1 (1 excluded);
        other architectures have none.
    context_channels : int
        Tissue channels behind the RGB ones; 0 for tissue networks and cell-only networks.
    classes : int
        Output channels.

    Raises
    ------
    ValueError
        If a number is outside its range.
    """

    encoder: str
    depth: int
    decoder_channels: int
    downsampling: int
    scales: tuple[float, ...] = (1.0,)
    architecture: str = "deeplabv3plus"
    dropout: float = 0.5
    # A preset sets these two: they follow from its task and coupling.
    context_channels: int = field(default=0, metadata={"follows": True})
    classes: int = field(default=2, metadata={"follows": True})

    def has_weights_of(self, other: NetworkConfig) -> bool:
        """Whether its network has the weights of the other; how they are used may differ."""
        used = {name: getattr(other, name) for name in ("downsampling", "scales", "dropout")}
        return replace(self, **used) == other

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError("scales must be one or several, not none")
        check_ranges(
            self,
            depth=Range(1, 5),
            decoder_channels=AT_LEAST_ONE,
            downsampling=AT_LEAST_ONE,
            scales=Range(0, 4, without=(0,)),
            dropout=Range(0, 1, without=(1,)),
        )
