"""Exported networks go on being trained as the networks that they were."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from softctm.errors import ModelError
from softctm.model.network_file import Network
from softctm.networks.deeplab import DeepLab
from softctm.networks.encoder_weights import stride_early, strides_early
from softctm.networks.exported import load_exported
from softctm.networks.fuse_batch_norm import fuse_batch_norm
from softctm.networks.network_config import NetworkConfig
from softctm.training.model_export import export_network

SPEC = NetworkConfig("resnet18", 4, 16, 8, context_channels=2, classes=3)


@pytest.fixture(scope="module")
def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(4, 5, 64, 64, generator=generator) for _ in range(8)]


@pytest.fixture(scope="module")
def trained(images: list[torch.Tensor]) -> DeepLab:
    """A network whose batch statistics are those of the images."""
    torch.manual_seed(0)
    network = DeepLab(SPEC)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over batches
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.Dropout):
            module.p = 0
    with torch.no_grad():
        for batch in images:
            network.train()(batch)
    return network.eval()


@pytest.fixture(scope="module")
def file(trained: DeepLab, tmp_path_factory: pytest.TempPathFactory) -> Network:
    path = tmp_path_factory.mktemp("model") / "cell_fold0.onnx"
    export_network(trained, path)
    return Network(path, hashlib.sha256(path.read_bytes()).hexdigest(), 0)


def test_the_same_logits(trained: DeepLab, file: Network, images: list[torch.Tensor]) -> None:
    loaded = load_exported(SPEC, file, images)
    assert not loaded.training
    with torch.no_grad():
        expected = trained(images[0])
        # Weights were stored in 16 bits.
        assert (loaded(images[0]) - expected).abs().max() < 0.01 * expected.std()


def test_the_place_of_the_strides_comes_back(images: list[torch.Tensor], tmp_path: Path) -> None:
    spec = NetworkConfig("resnet50", 4, 16, 8)
    torch.manual_seed(0)
    network = DeepLab(spec)
    stride_early(network.body.encoder)
    path = tmp_path / "tissue.onnx"
    export_network(network, path)
    file = Network(path, hashlib.sha256(path.read_bytes()).hexdigest(), 0)
    rgb = [batch[:, :3] for batch in images[:2]]
    loaded = load_exported(spec, file, rgb)
    assert strides_early(loaded.body.encoder)
    with torch.no_grad():
        expected = network.eval()(rgb[0])
        assert (loaded(rgb[0]) - expected).abs().max() < 0.01 * expected.std()


def test_without_batch_normalization_it_computes_the_same(
    trained: DeepLab, images: list[torch.Tensor]
) -> None:
    plain = fuse_batch_norm(trained)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    with torch.no_grad():
        torch.testing.assert_close(plain(images[0]), trained(images[0]), rtol=1e-3, atol=1e-4)
    assert any(isinstance(module, nn.BatchNorm2d) for module in trained.modules())


def test_several_scales_share_one_set_of_weights(images: list[torch.Tensor], tmp_path: Path) -> None:
    spec = replace(SPEC, scales=(1.0, 1.25, 1.5))
    torch.manual_seed(0)
    network = DeepLab(spec).eval()
    path = tmp_path / "cells.onnx"
    assert export_network(network, path) < 1e-3
    alone = tmp_path / "alone.onnx"
    export_network(DeepLab(SPEC).eval(), alone)
    assert path.stat().st_size < 1.1 * alone.stat().st_size
    file = Network(path, hashlib.sha256(path.read_bytes()).hexdigest(), 0)
    with torch.no_grad():
        expected = network(images[0])
        assert (load_exported(spec, file, images)(images[0]) - expected).abs().max() < 0.01 * expected.std()


def test_in_training_it_normalizes_by_its_batch_as_before(
    trained: DeepLab, file: Network, images: list[torch.Tensor]
) -> None:
    loaded = load_exported(SPEC, file, images)
    for module in loaded.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0
    with torch.no_grad():
        expected, found = trained.train()(images[0]), loaded.train()(images[0])
    trained.eval()
    assert (found - expected).abs().mean() < 0.05 * expected.std()


def test_another_network_is_refused(file: Network, images: list[torch.Tensor], tmp_path: Path) -> None:
    other = NetworkConfig("resnet18", 4, 32, 8, context_channels=2, classes=3)
    with pytest.raises(ModelError, match=r"cell_fold0\.onnx: body\.decoder.* is \(16, .* where \(32, "):
        load_exported(other, file, images)
    deeper = NetworkConfig("resnet18", 5, 16, 8, context_channels=2, classes=3)
    with pytest.raises(ModelError, match=r"layer4.* is not there where .*not a network that"):
        load_exported(deeper, file, images)
