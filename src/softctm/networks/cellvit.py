"""CellViT (arXiv 2306.15350): a vision transformer with three decoders of nuclei maps.

Parameters have the names of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from softctm.networks.vit import ENCODERS, VisionTransformer


@dataclass(frozen=True)
class CellViTSpec:
    """What the network is made of.

    Attributes
    ----------
    encoder : str
        A name in `ENCODERS`.
    types : int
        Channels of the type map, background included.
    tissues : int
        Classes of the tissue.
    """

    encoder: str = "256"
    types: int = 6
    tissues: int = 19


class CellViTOutput(NamedTuple):
    """What the network says of images (B, 3, H, W); no softmax is applied to anything.

    Attributes
    ----------
    nuclei_binary_map : (B, 2, H, W)
        Not a nucleus, nucleus.
    hv_map : (B, 2, H, W)
        Horizontal and vertical distance to the nucleus' center.
    nuclei_type_map : (B, types, H, W)
    tissue_types : (B, tissues)
    tokens : (B, width, H / 16, W / 16)
        The last block's.
    """

    nuclei_binary_map: Tensor
    hv_map: Tensor
    nuclei_type_map: Tensor
    tissue_types: Tensor
    tokens: Tensor


class CellViT(nn.Module):
    """Normalized RGB in, `CellViTOutput` out; sides are multiples of 16."""

    def __init__(self, spec: CellViTSpec) -> None:
        super().__init__()
        self.spec = spec
        encoder = ENCODERS[spec.encoder]
        width = encoder.width
        self.encoder = VisionTransformer(encoder, spec.tissues)
        if width < 512:
            widths, first = (128, 256, 312), 256
        else:
            widths, first = (128, 256, 512), 512
        middle = 128 if width < 512 else 256
        self.decoder0 = nn.Sequential(Convolution(3, 32), Convolution(32, 64))
        self.decoder1 = _enlarging(width, first, middle, widths[0])
        self.decoder2 = _enlarging(width, first, widths[1])
        self.decoder3 = _enlarging(width, widths[2])
        self.nuclei_binary_map_decoder = MapDecoder(width, widths, 2)
        self.hv_map_decoder = MapDecoder(width, widths, 2)
        self.nuclei_type_maps_decoder = MapDecoder(width, widths, spec.types)
        if encoder.windowed:
            self.classifier_head = nn.Linear(256, spec.tissues)

    def forward(self, image: Tensor) -> CellViTOutput:
        """Run the encoder once and each decoder on its tokens."""
        summary, tokens = self.encoder(image)
        skips = (
            self.decoder0(image), self.decoder1(tokens[0]), self.decoder2(tokens[1]), self.decoder3(tokens[2])
        )  # fmt: skip
        return CellViTOutput(
            self.nuclei_binary_map_decoder(skips, tokens[3]),
            self.hv_map_decoder(skips, tokens[3]),
            self.nuclei_type_maps_decoder(skips, tokens[3]),
            self.classifier_head(summary) if self.encoder.spec.windowed else summary,
            tokens[3],
        )


class MapDecoder(nn.Module):
    """From the last tokens and the skip connections to one map at full resolution."""

    def __init__(self, tokens: int, widths: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.bottleneck_upsampler = nn.ConvTranspose2d(tokens, coarse, 2, 2)
        self.decoder3_upsampler = nn.Sequential(
            Convolution(2 * coarse, coarse), Convolution(coarse, coarse), Convolution(coarse, coarse),
            nn.ConvTranspose2d(coarse, middle, 2, 2),
        )  # fmt: skip
        self.decoder2_upsampler = nn.Sequential(
            Convolution(2 * middle, middle), Convolution(middle, middle),
            nn.ConvTranspose2d(middle, fine, 2, 2),
        )  # fmt: skip
        self.decoder1_upsampler = nn.Sequential(
            Convolution(2 * fine, fine), Convolution(fine, fine), nn.ConvTranspose2d(fine, 64, 2, 2)
        )
        self.decoder0_header = nn.Sequential(
            Convolution(128, 64), Convolution(64, 64), nn.Conv2d(64, channels, 1)
        )

    def forward(self, skips: tuple[Tensor, Tensor, Tensor, Tensor], tokens: Tensor) -> Tensor:
        """Skips from fine to coarse (full, 1/2, 1/4, 1/8 resolution) and tokens (1/16) → the map."""
        x = self.bottleneck_upsampler(tokens)
        x = self.decoder3_upsampler(torch.cat([skips[3], x], 1))
        x = self.decoder2_upsampler(torch.cat([skips[2], x], 1))
        x = self.decoder1_upsampler(torch.cat([skips[1], x], 1))
        result: Tensor = self.decoder0_header(torch.cat([skips[0], x], 1))
        return result


class Convolution(nn.Module):
    """3 × 3 convolution, batch normalization, ReLU; before it, on wish, an enlargement by 2."""

    def __init__(self, inside: int, outside: int, enlarge: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ConvTranspose2d(inside, outside, 2, 2)] if enlarge else []
        layers += [
            nn.Conv2d(outside if enlarge else inside, outside, 3, padding=1),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
        ]
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) → (B, outside, H, W), or twice the sides."""
        result: Tensor = self.block(x)
        return result


def _enlarging(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(Convolution(*pair, enlarge=True) for pair in pairwise(widths)))
