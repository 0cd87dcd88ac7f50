"""Batch normalisation melted into the convolution before it: the same network, with fewer steps."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils import fuse_conv_bn_weights

from softctm.networks.deeplab import DeepLab


def convolutions(network: nn.Module) -> list[tuple[str, nn.Conv2d, nn.BatchNorm2d | None]]:
    """Every convolution with its name, and the batch normalisation that follows it as modules are listed."""
    return [(name, module, norm) for name, module, _, norm in _pairs(network)]


def melted(network: DeepLab) -> DeepLab:
    """A copy of a trained network without batch normalisation, which computes what the network does.

    A network that looks several times keeps one set of weights in its file only where nothing but
    convolutions reads them.
    """
    network = copy.deepcopy(network).eval()
    for _, convolution, place, norm in _pairs(network):
        if norm is None:
            continue
        assert norm.running_mean is not None
        assert norm.running_var is not None
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        network.set_submodule(place, nn.Identity())
    return network


def _pairs(network: nn.Module) -> list[tuple[str, nn.Conv2d, str, nn.BatchNorm2d | None]]:
    """Convolution's name and module, then those of its normalisation."""
    found: list[tuple[str, nn.Conv2d, str, nn.BatchNorm2d | None]] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            found.append((name, module, "", None))
        elif isinstance(module, nn.BatchNorm2d):
            found[-1] = (*found[-1][:2], name, module)
    return found
