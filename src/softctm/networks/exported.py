"""A network that was exported, made ready for more training.

Exporting fuses each batch normalization into the convolution before it, so that a model holds no batch
statistics. Here they are measured anew: the network computes what the file does, and in training, where
activations are normalized by their batch, nearly so.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from softctm.errors import ModelError
from softctm.model.network_file import Network
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.device import own_device
from softctm.networks.encoder_weights import stride_early
from softctm.networks.fuse_batch_norm import convolutions
from softctm.networks.network_config import NetworkConfig
from softctm.networks.network_table import build_network

_PREFIX = "network."
_EARLY_STRIDE = ".encoder.layer2.0.conv1"
_HALF = "_float16"


def load_exported(config: NetworkConfig, file: Network, images: Iterable[Tensor]) -> SegmentationNetwork:
    """The network that `softctm export` wrote, with batch normalization that can be trained.

    Parameters
    ----------
    config : NetworkConfig
        What it is made of; `downsampling` may differ.
    file : Network
    images : iterable of (B, 3 + context_channels, H, W) float32
        Batches as in training, whose activations are the first batch statistics.

    Raises
    ------
    ModelError
        If the file was not written by `softctm export`, or is of another network.
    """
    network = build_network(config)
    if any(isinstance(module, (nn.Linear, nn.LayerNorm)) for module in network.modules()):
        raise ModelError(
            f"{file.path}: a model of architecture {config.architecture} cannot be trained further; "
            "start from the run that it was exported from"
        )
    graph = onnx.load_model_from_string(file.read()).graph
    stored = {tensor.name.removesuffix(_HALF): numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = {_own_name(node.input[1]): node for node in graph.node if node.op_type == "Conv"}
    norms = {}
    for name, convolution, norm in convolutions(network):
        node = nodes.get(_own_name(f"{name}.weight"), onnx.NodeProto())
        weight, bias = (*(stored.get(value) for value in node.input[1:]), None, None)[:2]
        _fill(convolution.weight, weight, f"{name}.weight", file)
        if bias is None:  # the exporter leaves zeros out
            bias = np.zeros(convolution.out_channels)
        if norm is not None:
            norms[norm] = torch.empty(convolution.out_channels)
            _fill(norms[norm], bias, f"{name}.bias", file)
        elif convolution.bias is not None:
            _fill(convolution.bias, bias, f"{name}.bias", file)
        if name.endswith(_EARLY_STRIDE) and _strides(node) and convolution.stride == (1, 1):
            for encoder in network.encoders:
                stride_early(encoder)
    _measure(network, norms, images)
    return network.eval()


def _own_name(name: str) -> str:
    """A weight's name without those of the modules that an export wraps the network in."""
    while name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX)
    return name


def _strides(node: onnx.NodeProto) -> bool:
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return any(stride > 1 for stride in given.get("strides", ()))


def _fill(target: Tensor, values: NDArray[np.generic] | None, name: str, file: Network) -> None:
    if values is None or values.shape != tuple(target.shape):
        found = "is not there" if values is None else f"is {values.shape}"
        raise ModelError(
            f"{file.path}: {name} {found} where {tuple(target.shape)} is wanted; "
            "not a network that `softctm export` wrote, or another one"
        )
    with torch.no_grad():
        target.copy_(torch.from_numpy(values.astype(np.float32)))


def _measure(network: nn.Module, norms: dict[nn.BatchNorm2d, Tensor], images: Iterable[Tensor]) -> None:
    """Set each normalization so that it adds its bias, and nothing else, to what these images bring it."""
    noted: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {norm: [] for norm in norms}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        noted[norm].append((mean, variance))

    for norm, bias in norms.items():
        _set(norm, torch.zeros_like(bias), torch.ones_like(bias) - norm.eps, bias)
    device = own_device()
    network.to(device)
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    with torch.inference_mode():
        for batch in images:
            network.eval()(batch.to(device))
    for hook in hooks:
        hook.remove()
    network.cpu()
    for norm, bias in norms.items():
        mean, variance = (torch.stack(values).mean(0).cpu() for values in zip(*noted[norm], strict=True))
        _set(norm, mean, variance, bias)


@torch.no_grad()
def _set(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, bias: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean + bias)
