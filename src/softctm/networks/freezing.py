"""Keeping the first stages of an encoder as they are."""

from __future__ import annotations

from softctm.errors import UsageError
from softctm.networks.architecture import SegmentationNetwork

_RESNET_STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))


def freeze_stages(network: SegmentationNetwork, number: int) -> None:
    """Exclude the first stages of a ResNet encoder from training: 1 its stem, 2 layer1 too, and so on.

    Their batch normalization still measures its statistics. Without gradients of stem and layer1 a
    step of the compact networks costs a quarter less.

    Raises
    ------
    UsageError
        If the encoder is no ResNet, or has fewer stages.
    """
    if not number:
        return
    encoder = network.encoder
    names = [name for stage in _RESNET_STAGES[:number] for name in stage]
    if not 0 < number <= len(_RESNET_STAGES) or not all(hasattr(encoder, name) for name in names):
        raise UsageError(
            f"optimizer.frozen_stages={number}: the encoder {network.config.encoder} has no stages "
            f"{', '.join(names) or number} to keep; lower it, or use a ResNet"
        )
    for name in names:
        for parameter in getattr(encoder, name).parameters():
            parameter.requires_grad_(False)
