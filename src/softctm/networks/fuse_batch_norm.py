"""Batch normalization fused into the convolution before it: the same network, with fewer steps."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from softctm.networks.architecture import SegmentationNetwork


def convolutions(network: nn.Module) -> list[tuple[str, nn.Conv2d, nn.BatchNorm2d | None]]:
    """Every convolution with its name, and the batch normalization that follows it as modules are listed."""
    found: list[tuple[str, nn.Conv2d, nn.BatchNorm2d | None]] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            found.append((name, module, None))
        elif isinstance(module, nn.BatchNorm2d):
            found[-1] = (*found[-1][:2], module)
    return found


def fuse_batch_norm(network: SegmentationNetwork) -> SegmentationNetwork:
    """A copy of a trained network without batch normalization, which computes what the network does.

    A network that runs at several scales keeps one set of weights in its file only where nothing but
    convolutions reads them.
    """
    network = copy.deepcopy(network).eval()
    for name, convolution, norm in convolutions(network):
        if norm is not None:
            network.set_submodule(name, fuse_conv_bn_eval(convolution, norm))
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.Identity())
    return network
