"""DeepLabV3+ for both tasks, from segmentation_models_pytorch, with encoders that may end at layer3.

The paper uses DeepLabV3+ with a ResNet50 encoder for tissue and for cells. Two networks
wrap each other here: `DeepLab` works at its own resolution and is what is trained; `ServedNetwork` puts
the change of resolution around it and is what is exported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from softctm.networks.encoder_weights import load_encoder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is made of.

    Attributes
    ----------
    encoder : str
        Name in segmentation_models_pytorch, such as "resnet18".
    depth : int
        4 ends the encoder at layer3 (output stride 16), 5 at layer4.
    decoder_channels : int
        Width of the ASPP and of the decoder.
    context_channels : int
        Tissue channels behind the RGB ones; 0 for tissue networks and cell-only networks.
    classes : int
        Output channels.
    downsampling : int
        The network works at 1 / downsampling of its input's resolution.
    looks : tuple of float
        Magnifications of that resolution at which the served network looks at its input; see `ServedNetwork`.
    """

    encoder: str
    depth: int
    decoder_channels: int
    context_channels: int
    classes: int
    downsampling: int
    looks: tuple[float, ...] = (1.0,)


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


class DeepLab(nn.Module):
    """RGB in [0, 1] and context channels in, logits out, all at the network's own resolution.

    Shapes: (B, 3 + context_channels, H, W) → (B, classes, H, W), H and W multiples of 16.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec, encoder_weights: str | None = None) -> None:
        """Build the network; `encoder_weights` is a safetensors file, a library name ("imagenet") or None.

        Raises
        ------
        ModelError
            If the weights cannot be read or do not fit the encoder.
        """
        super().__init__()
        import segmentation_models_pytorch as smp

        self.spec = spec
        from_file = encoder_weights is not None and encoder_weights.endswith(".safetensors")
        self.body = smp.DeepLabV3Plus(
            spec.encoder,
            encoder_weights=None if from_file else encoder_weights,
            encoder_depth=spec.depth,
            encoder_output_stride=16,
            in_channels=3 + spec.context_channels,
            classes=spec.classes,
            decoder_channels=spec.decoder_channels,
        )
        if spec.depth < 5 and hasattr(self.body.encoder, "layer4"):
            del self.body.encoder.layer4
        if from_file:
            load_encoder(self.body.encoder, Path(cast(str, encoder_weights)))
        self.body.decoder.aspp = FullPrecision(self.body.decoder.aspp)
        padding = spec.context_channels
        self.register_buffer("mean", torch.tensor([*IMAGENET_MEAN, *[0.5] * padding]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor([*IMAGENET_STD, *[0.5] * padding]).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize, run, return logits."""
        return cast(Tensor, self.body((x - self.mean) / self.std))


class ServedNetwork(nn.Module):
    """A trained network as the detector sees it: input and logits at the patch's full resolution.

    The network looks at every magnification in `NetworkSpec.looks`; the logits of all looks are averaged.
    """

    def __init__(self, network: DeepLab) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 1024, 1024) float32 in, logits (B, classes, 1024, 1024) out."""
        looks = self.network.spec.looks
        logits = self._at(looks[0], x)
        for magnification in looks[1:]:
            logits = logits + self._at(magnification, x)
        return logits / len(looks) if len(looks) > 1 else logits

    def _at(self, magnification: float, x: Tensor) -> Tensor:
        factor = self.network.spec.downsampling
        if magnification == 1:
            logits: Tensor = self.network(functional.avg_pool2d(x, factor) if factor > 1 else x)
            if factor == 1:
                return logits
            return functional.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)
        size = [round(side * magnification / factor / 16) * 16 for side in x.shape[-2:]]
        return _resized(self.network(_resized(x, size)), list(x.shape[-2:]))


def _resized(x: Tensor, size: list[int]) -> Tensor:
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
