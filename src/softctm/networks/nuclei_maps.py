"""Networks of nuclei as training and export see them: stacked maps, and each map by name.

Any architecture of the table finds nuclei where it gives 4 + types channels: logits of background and
nucleus, horizontal and vertical distance to the nucleus' center, logits of the types (background first).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from softctm.networks.cellvit import CellViT, CellViTOutput
from softctm.networks.nuclei_unet import WHERE
from softctm.networks.vit import ENCODERS, TOKEN
from softctm.postprocessing.hover import DISTANCE_HEAD, NUCLEUS_HEAD, TOKEN_HEAD, TYPE_HEAD

MAPS = (NUCLEUS_HEAD, DISTANCE_HEAD, TYPE_HEAD)

_TYPED = {"nuclei_type_maps_decoder.decoder0_header.2.": 0, "type_head.3.": 0, "segmentation_head.": WHERE}
"""Part of the names of the weights that give the types' logits → their row of the first type."""


def stacked(output: Tensor | CellViTOutput) -> tuple[Tensor, Tensor | None]:
    """The maps (B, 4 + types, H, W) of a network's output, and its tissue logits where it gives some."""
    if isinstance(output, CellViTOutput):
        maps = (output.nuclei_binary_map, output.hv_map, output.nuclei_type_map)
        return torch.cat([each.float() for each in maps], 1), output.tissue_types
    return output, None


def first_type_row(name: str) -> int | None:
    """Which row of a weight or bias gives the first type's logit; None if none does."""
    return next((row for part, row in _TYPED.items() if part in name), None)


class NamedMaps(nn.Module):
    """A network of stacked maps, with an output a map in the order of `MAPS`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """RGB (B, 3, H, W) in 0 … 1 → (B, 2, H, W), (B, 2, H, W), (B, types, H, W)."""
        maps: Tensor = self.network(image)
        return maps[:, :2], maps[:, 2:4], maps[:, 4:]


class NormalizedCellViT(nn.Module):
    """CellViT with its normalization: RGB in 0 … 1 in, `CellViTOutput` out."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: CellViT,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> CellViTOutput:
        """(B, 3, H, W) → the five outputs."""
        output: CellViTOutput = self.network((image - self.mean) / self.std)
        return output


def nuclei_stage(size: int, mpp: float, types: tuple[str, ...], encoder: str | None = None) -> dict[str, Any]:
    """What goes into and comes out of a network of nuclei, as the manifest says it.

    Parameters
    ----------
    size : int
        Pixels a side of what it is given.
    mpp : float
        µm per pixel of that.
    types : tuple of str
        Background first.
    encoder : str, optional
        Of a CellViT, a name in `ENCODERS`: its tokens come out too.
    """
    heads = (
        (MAPS[0], ("background", "nucleus"), "logits"),
        (MAPS[1], ("horizontal", "vertical"), "none"),
        (MAPS[2], types, "logits"),
    )
    described: list[dict[str, Any]] = [
        {"name": name, "classes": list(classes), "activation": activation}
        for name, classes, activation in heads
    ]
    if encoder is not None:
        width = ENCODERS[encoder].width
        described.append({"name": TOKEN_HEAD, "width": width, "stride": TOKEN, "activation": "none"})
    return {
        "input": {"size": size, "mpp": mpp, "channels": ["red", "green", "blue"]},
        "heads": described,
    }
