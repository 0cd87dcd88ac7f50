"""A pretrained encoder's weights, and the strides that belong to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from softctm.errors import ModelError

_PARTS = {"layer2", "layer3", "layer4", "fc"}
"""What torchvision's ResNets have that a shallower encoder lacks."""


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Fill an encoder from a safetensors file with torchvision's names, in place.

    Extra input channels start at zero, so that training begins with what the weights know. A whole ResNet's
    classifier and deeper stages are passed over. Files whose name
    begins with "resnet50" follow the original ResNet: the stride of a stage sits in the first bottleneck's
    1 × 1 convolution, not in its 3 × 3; the encoder is changed to compute that.

    Raises
    ------
    ModelError
        If the file cannot be read, or lacks or adds a parameter.
    """
    try:
        weights = {name: value.float() for name, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path}: cannot be read as safetensors encoder weights ({error}); check --encoder-weights"
        ) from None
    first = weights.get("conv1.weight")
    stem = getattr(encoder, "conv1", None)  # which other encoders than ResNets call otherwise
    if first is not None and stem is not None and first.shape[1] < stem.in_channels:
        extra = first.new_zeros(first.shape[0], stem.in_channels - first.shape[1], *first.shape[2:])
        weights["conv1.weight"] = torch.cat([first, extra], dim=1)
    own = {name for name in encoder.state_dict() if not name.endswith("num_batches_tracked")}
    beyond = _PARTS - {name.partition(".")[0] for name in own}
    given = {
        name
        for name in weights
        if not name.endswith("num_batches_tracked") and name.partition(".")[0] not in beyond
    }
    if own != given:
        raise ModelError(
            f"{path}: does not fit the encoder; lacks {sorted(own - given)[:3] or 'nothing'}, "
            f"adds {sorted(given - own)[:3] or 'nothing'}"
        )
    try:
        encoder.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ModelError(
            f"{path}: does not fit the encoder ({str(error).splitlines()[-1].strip()})"
        ) from None
    if path.name.startswith("resnet50"):
        stride_early(encoder)


def stride_early(encoder: nn.Module) -> None:
    """Let the first bottleneck of layer2 and of layer3 stride in its 1 × 1 convolution."""
    for stage in (cast(Any, encoder).layer2, cast(Any, encoder).layer3):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)


def strides_early(encoder: nn.Module) -> bool:
    """Whether a bottleneck's first convolution strides; basic blocks, which have two, always stride there."""
    blocks = getattr(encoder, "layer2", None)
    return blocks is not None and hasattr(blocks[0], "conv3") and blocks[0].conv1.stride == (2, 2)
