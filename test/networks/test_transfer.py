"""Weights handed on to a network that is not quite the same."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from softctm.errors import TrainingError
from softctm.networks.network_config import NetworkConfig
from softctm.networks.network_table import build_network
from softctm.networks.transfer import transfer_weights
from softctm.networks.weights import save_network

CELLS_ALONE = NetworkConfig("resnet18", 4, 16, 2, classes=3)


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_network(build_network(CELLS_ALONE), tmp_path / "network.safetensors")
    return tmp_path / "network.safetensors"


@pytest.mark.parametrize(
    "architecture",
    [
        "deeplabv3plus",
        "deeplabv3plus-after-encoder",
        "deeplabv3plus-after-aspp",
        "deeplabv3plus-after-decoder",
    ],
)
def test_a_network_with_context_begins_as_the_one_without(stored: Path, architecture: str) -> None:
    torch.manual_seed(0)
    before = build_network(CELLS_ALONE).eval()
    network = build_network(replace(CELLS_ALONE, architecture=architecture, context_channels=2)).eval()
    transfer_weights(network, stored)
    with torch.inference_mode():
        torch.testing.assert_close(network(image(1, 5, 64, 64)), before(image(1, 5, 64, 64)[:, :3]))


def test_what_does_not_fit_stays_and_is_logged(stored: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = build_network(replace(CELLS_ALONE, classes=2))
    head = network.state_dict()["body.segmentation_head.0.weight"].clone()
    with caplog.at_level(logging.INFO):
        transfer_weights(network, stored)
    assert torch.equal(network.state_dict()["body.segmentation_head.0.weight"], head)
    assert "does not hold body.segmentation_head.0.weight, body.segmentation_head.0.bias" in caplog.text


def test_another_encoder_is_refused(stored: Path) -> None:
    with pytest.raises(TrainingError, match="its encoder is another one"):
        transfer_weights(build_network(replace(CELLS_ALONE, encoder="resnet34")), stored)
    stored.write_bytes(b"no weights")
    with pytest.raises(TrainingError, match="cannot be read"):
        transfer_weights(build_network(CELLS_ALONE), stored)
