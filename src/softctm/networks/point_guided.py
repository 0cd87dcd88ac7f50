"""A network that outlines the nucleus at a given point: NuClick's idea (arXiv 2005.14511)."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

from softctm.errors import ModelError
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.fuse_batch_norm import fuse_batch_norm
from softctm.networks.onnx_export import export_onnx
from softctm.networks.served import ServedNetwork

GUIDES = 2
"""Guiding channels behind RGB: inclusion, this nucleus's point; exclusion, the others' points."""

MARK = 11
"""Side, pixels, of the square that stands for a point: a single pixel is lost in pooling."""

MAX_DIFFERENCE = 5e-3
"""Largest difference in probability between PyTorch and the exported file that is accepted."""


class PointGuided(nn.Module):
    """Puts marks for points, and the change of resolution, around a network; this is trained and exported.

    Parameters
    ----------
    network : SegmentationNetwork
        With `GUIDES` context channels and one class.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.served = ServedNetwork(network)

    @property
    def network(self) -> SegmentationNetwork:
        """What has weights."""
        return self.served.network

    def forward(self, x: Tensor) -> Tensor:
        """(B, 5, S, S) float32, RGB and both guides with a 1 at each point → logits (B, 1, S, S)."""
        marks = functional.max_pool2d(x[:, 3:], MARK, stride=1, padding=MARK // 2)
        logits: Tensor = self.served(torch.cat([x[:, :3], marks], 1))
        return logits


def export_point_guided(network: SegmentationNetwork, side: int, path: Path, facts: dict[str, str]) -> float:
    """Write a trained network as ONNX: dynamic batch, 16-bit weights, 32-bit arithmetic, logits out.

    Parameters
    ----------
    network : SegmentationNetwork
        In evaluation mode.
    side : int
        Of the crops that it will see, pixels.
    path : Path
    facts : dict
        What the file is to say of itself, such as the pixels' size.

    Returns
    -------
    float
        Largest difference in probability from PyTorch on a random crop, at most `MAX_DIFFERENCE`.

    Raises
    ------
    ModelError
        If the difference is larger.
    """
    example = torch.rand(2, 3 + GUIDES, side, side, generator=torch.Generator().manual_seed(0))
    example[:, 3:] = (example[:, 3:] > 0.999).float()
    exported = PointGuided(fuse_batch_norm(network)).eval()
    export_onnx(exported, example, ["logits"], path, always_halve=True, facts=facts)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    with torch.inference_mode():
        expected = PointGuided(network).eval()(example).sigmoid()
    difference = float((torch.from_numpy(logits).sigmoid() - expected).abs().max())
    if not difference <= MAX_DIFFERENCE:
        raise ModelError(
            f"{path}: differs from PyTorch by {difference:.2g} in probability, more than {MAX_DIFFERENCE}"
        )
    return difference
