"""The contract that every architecture keeps: one set of tests over all entries of the table."""

from __future__ import annotations

import io
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor

from softctm.networks.architecture import SegmentationNetwork
from softctm.networks.config import NetworkConfig
from softctm.networks.fuse_batch_norm import fuse_batch_norm
from softctm.networks.registry import ARCHITECTURES, build_network
from softctm.networks.served import ServedNetwork
from softctm.networks.weights import load_network, save_network

SIDE = 64


def small(architecture: str, context: int = 2, classes: int = 3) -> NetworkConfig:
    encoder, depth = ("mit_b0", 5) if architecture == "segformer" else ("resnet18", 4)
    return NetworkConfig(
        encoder, depth, 16, 2, architecture=architecture, context_channels=context, classes=classes
    )


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=sorted(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def network(architecture: str) -> SegmentationNetwork:
    """A network with random weights whose batch statistics are those of two images."""
    torch.manual_seed(3)
    network = build_network(small(architecture)).train()
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network(image(2, 5, SIDE, SIDE))
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def test_logits_have_the_size_of_the_input(network: SegmentationNetwork) -> None:
    height, width = 2 * network.multiple, 3 * network.multiple
    with torch.inference_mode():
        assert network(image(1, 5, height, width)).shape == (1, 3, height, width)


@pytest.mark.parametrize(("context", "classes"), [(0, 2), (0, 3), (3, 3)])
def test_any_number_of_context_channels_and_classes(architecture: str, context: int, classes: int) -> None:
    network = build_network(small(architecture, context, classes)).eval()
    with torch.inference_mode():
        assert network(image(1, 3 + context, SIDE, SIDE)).shape == (1, classes, SIDE, SIDE)


def test_every_parameter_gets_a_gradient(network: SegmentationNetwork) -> None:
    network.train()(image(2, 5, SIDE, SIDE)).square().mean().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_the_encoder_can_be_told_from_the_rest_by_its_parameters_names(network: SegmentationNetwork) -> None:
    assert network.encoder is not None
    inside = {id(parameter) for parameter in network.encoder.parameters()}
    named = {id(parameter) for name, parameter in network.named_parameters() if ".encoder." in name}
    assert inside == named
    assert len(inside) < len(list(network.parameters()))


def test_context_matters_once_no_weight_is_zero(network: SegmentationNetwork) -> None:
    first, second = image(1, 5, SIDE, SIDE), image(1, 5, SIDE, SIDE)
    second[:, 3:] = 1 - second[:, 3:]
    with torch.inference_mode():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        assert (network(first) - network(second)).abs().max() > 1e-5


def test_a_network_computes_the_same_after_a_stay_on_disk(
    network: SegmentationNetwork, tmp_path: Path
) -> None:
    save_network(network, tmp_path / "network.safetensors")
    loaded = load_network(network.config, tmp_path / "network.safetensors")
    with torch.inference_mode():
        assert torch.equal(loaded(image(1, 5, SIDE, SIDE)), network(image(1, 5, SIDE, SIDE)))


def test_without_batch_norm_it_computes_the_same(network: SegmentationNetwork) -> None:
    fused = fuse_batch_norm(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    with torch.inference_mode():
        torch.testing.assert_close(
            fused(image(1, 5, SIDE, SIDE)), network(image(1, 5, SIDE, SIDE)), rtol=1e-3, atol=1e-4
        )


def test_bfloat16_gives_the_logits_of_float32_nearly(network: SegmentationNetwork) -> None:
    with torch.inference_mode():
        exact = network(image(1, 5, SIDE, SIDE))
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(image(1, 5, SIDE, SIDE)).float()
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.slow
def test_exported_it_computes_the_same(network: SegmentationNetwork) -> None:
    buffer = io.BytesIO()
    batch = image(2, 5, 2 * SIDE, 2 * SIDE)
    served = ServedNetwork(network).eval()
    torch.onnx.export(
        served, (batch,), buffer, dynamo=False, input_names=["image"], dynamic_axes={"image": {0: "batch"}}
    )
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": batch[:1].numpy()})
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(logits), served(batch[:1]), rtol=1e-3, atol=1e-3)
