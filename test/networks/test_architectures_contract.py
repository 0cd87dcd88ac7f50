"""What every architecture in the table can do; `SMALL` is a small one of each."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from softctm.errors import UsageError
from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.fuse_batch_norm import fuse_batch_norm
from softctm.networks.joint import PAIR_CHANNELS, JointNetwork, PairNetwork
from softctm.networks.network_config import NetworkConfig
from softctm.networks.network_table import ARCHITECTURES, build_network
from softctm.networks.nuclei_unet import WHERE, NucleiUNet
from softctm.networks.served import ServedNetwork
from softctm.networks.weights import load_network, save_network
from softctm.training.model_export import MAX_DIFFERENCE, export_network

_RESNET = NetworkConfig("resnet18", 4, 16, 8, context_channels=2, classes=3)


def _small(name: str) -> NetworkConfig:
    changes: dict[str, object] = {"encoder": "mit_b0", "depth": 5} if name.endswith("segformer") else {}
    kind = ARCHITECTURES[name]
    if issubclass(kind, PairNetwork):
        changes |= {"context_channels": PAIR_CHANNELS, "classes": 5 if issubclass(kind, JointNetwork) else 3}
    if kind is NucleiUNet:
        changes |= {"classes": WHERE + 3}
    return replace(_RESNET, architecture=name, **changes)


SMALL = {name: _small(name) for name in sorted(ARCHITECTURES)}
"""Architecture → a configuration that is quick to run."""

by_name = pytest.mark.parametrize("name", sorted(ARCHITECTURES))


def image(name: str, batch: int, rows: int, columns: int) -> Tensor:
    """A batch of an architecture's input: noise, and a window where it takes one."""
    channels = 3 + SMALL[name].context_channels
    shown = torch.rand(batch, channels, rows, columns, generator=torch.Generator().manual_seed(0))
    if issubclass(ARCHITECTURES[name], PairNetwork):
        shown[:, -1] = 0
        shown[:, -1, rows // 4 : rows // 2, columns // 2 : columns // 4 * 3] = 1
    return shown


@functools.cache
def trained(name: str) -> SegmentationNetwork:
    """A network with batch statistics of its own; shared by the tests, which leave it alone."""
    torch.manual_seed(0)
    network = build_network(SMALL[name]).train()
    side = 4 * network.multiple
    with torch.no_grad():
        for _ in range(3):
            network(image(name, 4, side, side))
    return network.eval()


def test_unknown_architecture_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match=r"architecture .other.: unknown; choose one of .*deeplabv3plus"):
        build_network(replace(SMALL["deeplabv3plus"], architecture="other"))


@by_name
def test_logits_have_the_size_of_any_input_that_is_a_multiple(name: str) -> None:
    network = trained(name)
    for rows, columns in ((2, 3), (5, 2), (7, 7)):
        shown = image(name, 2, rows * network.multiple, columns * network.multiple)
        with torch.inference_mode():
            logits = network(shown)
        assert logits.shape == (2, SMALL[name].classes, *shown.shape[-2:])
        assert logits.isfinite().all()


@pytest.mark.parametrize(
    "name", [name for name, kind in ARCHITECTURES.items() if not issubclass(kind, PairNetwork)]
)
@pytest.mark.parametrize("context", [0, 3])
def test_channels_and_classes_are_those_of_the_configuration(name: str, context: int) -> None:
    classes = SMALL[name].classes + 1
    config = replace(SMALL[name], context_channels=context, classes=classes)
    network = build_network(config).eval()
    assert network.config == config
    side = 2 * network.multiple
    with torch.inference_mode():
        assert network(torch.rand(1, 3 + context, side, side)).shape == (1, classes, side, side)


@by_name
def test_every_parameter_learns_and_the_encoder_is_found_by_name(name: str) -> None:
    network = build_network(SMALL[name]).train()
    side = 4 * network.multiple
    network(image(name, 2, side, side)).square().mean().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    named = {id(value) for key, value in network.named_parameters() if ".encoder." in key}
    assert named == {id(value) for encoder in network.encoders for value in encoder.parameters()}


@by_name
def test_a_saved_network_computes_the_same(name: str, tmp_path: Path) -> None:
    network = trained(name)
    save_network(network, tmp_path / "network.safetensors", {"more": "facts"})
    loaded = load_network(SMALL[name], tmp_path / "network.safetensors")
    side = 4 * network.multiple
    with torch.inference_mode():
        assert torch.equal(loaded(image(name, 1, side, side)), network(image(name, 1, side, side)))
    assert [path.name for path in tmp_path.iterdir()] == ["network.safetensors"]


@by_name
def test_context_matters_once_no_weight_is_zero(name: str) -> None:
    network = copy.deepcopy(trained(name))
    side = 2 * network.multiple
    first, second = image(name, 1, side, side), image(name, 1, side, side)
    first[:, 3:], second[:, 3:] = 0, 1
    with torch.inference_mode():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        assert (network(first) - network(second)).abs().max() > 1e-5


@by_name
def test_without_batch_norm_it_computes_the_same(name: str) -> None:
    network = trained(name)
    fused = fuse_batch_norm(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    shown = image(name, 1, 2 * network.multiple, 2 * network.multiple)
    with torch.inference_mode():
        torch.testing.assert_close(fused(shown), network(shown), rtol=1e-3, atol=1e-4)


@by_name
def test_bfloat16_gives_nearly_the_logits_of_float32(name: str) -> None:
    network = trained(name)
    shown = image(name, 1, 2 * network.multiple, 2 * network.multiple)
    with torch.inference_mode():
        exact = network(shown)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(shown).float()
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()


@by_name
def test_served_at_several_scales_it_keeps_the_size(name: str) -> None:
    network = copy.deepcopy(trained(name))
    network.config = replace(SMALL[name], scales=(1.0, 1.3))
    with torch.inference_mode():
        assert ServedNetwork(network)(image(name, 1, 512, 256)).shape == (1, SMALL[name].classes, 512, 256)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith(("joint-", "segformer")) else ())
        for name in sorted(ARCHITECTURES)
    ],
)
def test_exported_it_agrees_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    # The export compares the file's answer in ONNX Runtime with PyTorch's, and raises if they differ.
    assert export_network(trained(name), tmp_path / "network.onnx") <= MAX_DIFFERENCE
    assert (tmp_path / "network.onnx").stat().st_size > 1000
