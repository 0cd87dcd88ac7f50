"""Stages that training leaves alone."""

from __future__ import annotations

import pytest
import torch

from softctm.errors import UsageError
from softctm.networks.freezing import freeze_stages
from softctm.networks.network_config import NetworkConfig
from softctm.networks.network_table import build_network

RESNET = NetworkConfig("resnet18", 4, 16, 2)


@pytest.mark.parametrize(
    ("number", "frozen"), [(0, set()), (1, {"conv1", "bn1"}), (2, {"conv1", "bn1", "layer1"})]
)
def test_a_step_changes_all_but_the_first_stages(number: int, frozen: set[str]) -> None:
    torch.manual_seed(0)
    network = build_network(RESNET).train()
    freeze_stages(network, number)
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.AdamW(network.parameters(), 0.1, weight_decay=0.1)
    network(torch.rand(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    for name, value in network.named_parameters():
        stage = name.removeprefix("body.encoder.").split(".")[0]
        assert torch.equal(value, before[name]) == (stage in frozen), name


@pytest.mark.parametrize(
    ("encoder", "depth", "number"), [("resnet18", 4, 5), ("resnet18", 4, -1), ("mit_b0", 5, 1)]
)
def test_stages_that_are_not_there_are_refused(encoder: str, depth: int, number: int) -> None:
    architecture = "segformer" if encoder == "mit_b0" else "deeplabv3plus"
    network = build_network(NetworkConfig(encoder, depth, 16, 2, architecture=architecture))
    with pytest.raises(UsageError, match=f"frozen_stages={number}"):
        freeze_stages(network, number)
