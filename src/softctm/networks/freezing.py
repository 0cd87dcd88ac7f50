"""Which parameters are encoders', and keeping their first stages as they are."""

from __future__ import annotations

from softctm.errors import UsageError
from softctm.networks.architecture import SegmentationNetwork

_RESNET_STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))


def is_of_encoder(name: str) -> bool:
    """Whether a parameter is of an encoder, by its name; the tissue head on CellViT's is not."""
    return ".encoder." in name and ".encoder.head." not in name


def freeze_stages(network: SegmentationNetwork, number: int) -> None:
    """Exclude the first stages of ResNet encoders from training: 1 its stem, 2 layer1 too, and so on.

    Their batch normalization still measures its statistics. Without gradients of stem and layer1 a
    step of the compact networks costs a quarter less.

    Raises
    ------
    UsageError
        If an encoder is no ResNet, or has fewer stages.
    """
    if not number:
        return
    names = [name for stage in _RESNET_STAGES[:number] for name in stage]
    has_all = all(hasattr(encoder, name) for encoder in network.encoders for name in names)
    if not 0 < number <= len(_RESNET_STAGES) or not network.encoders or not has_all:
        raise UsageError(
            f"optimizer.frozen_stages={number}: the encoder {network.config.encoder} has no stages "
            f"{', '.join(names) or number} to keep; lower it, or use a ResNet"
        )
    for encoder in network.encoders:
        for name in names:
            for parameter in getattr(encoder, name).parameters():
                parameter.requires_grad_(False)
