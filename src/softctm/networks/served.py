"""A trained network as the detector sees it: full resolution in and out, at one scale or several."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from softctm.networks.architecture import SegmentationNetwork


class ServedNetwork(nn.Module):
    """Puts the change of resolution around a trained network; this is what is exported.

    The network sees its input at every scale in `NetworkConfig.scales`; the logits of all are averaged.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 1024, 1024) float32 in, logits (B, classes, 1024, 1024) out."""
        scales = self.network.config.scales
        logits = self._at(scales[0], x)
        for scale in scales[1:]:
            logits = logits + self._at(scale, x)
        return logits / len(scales) if len(scales) > 1 else logits

    def _at(self, scale: float, x: Tensor) -> Tensor:
        factor, multiple = self.network.config.downsampling, self.network.multiple
        if scale == 1:
            logits: Tensor = self.network(functional.avg_pool2d(x, factor) if factor > 1 else x)
            if factor == 1:
                return logits
            return functional.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)
        size = [round(side * scale / factor / multiple) * multiple for side in x.shape[-2:]]
        return _resized(self.network(_resized(x, size)), list(x.shape[-2:]))


def _resized(x: Tensor, size: list[int]) -> Tensor:
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


class ServedHeads(ServedNetwork):
    """The same, with the logits of every head as an output of its own."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """(B, C, 1024, 1024) float32 in, logits (B, classes of the head, 1024, 1024) of every head out."""
        return tuple(super().forward(x).split(list(self.network.heads.values()), 1))
