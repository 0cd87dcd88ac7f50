"""The networks: shapes, encoders from files, precision, and what is served at full resolution."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from softctm.errors import ModelError
from softctm.networks.deeplab import DeepLab
from softctm.networks.network_config import NetworkConfig
from softctm.networks.network_table import build_network
from softctm.networks.served import ServedNetwork
from softctm.networks.weights import load_network, save_network
from softctm.training.config import Task
from softctm.training.presets import PRESETS

SMALL = NetworkConfig("resnet18", 4, 16, 2, context_channels=2, classes=3)
CONTEXT_FREE = NetworkConfig("resnet18", 4, 16, 4)


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def encoder_file(path: Path, encoder: str = "resnet18") -> dict[str, Tensor]:
    """Random encoder weights under torchvision's names, stem to layer3, three input channels."""
    torch.manual_seed(11)
    network = DeepLab(NetworkConfig(encoder, 4, 16, 1))
    weights = {
        name: torch.rand_like(value)
        for name, value in network.body.encoder.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(weights, path)
    return weights


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("task", ["tissue", "cells"])
def test_logits_have_the_size_of_the_input(preset: str, task: Task) -> None:
    config = getattr(PRESETS[preset], task)
    by_coupling = {"none": (0, 3), "predicted": (2, 3), "annotated": (2, 3), "joint": (4, 5), "image": (4, 3)}
    context, classes = (0, 2) if task == "tissue" else by_coupling[config.coupling]
    network = build_network(config.network).eval()
    with torch.inference_mode():
        assert network(image(1, 3 + context, 64, 96)).shape == (1, classes, 64, 96)


def test_dropout_behind_the_aspp_is_the_configurations() -> None:
    for share in (0.0, 0.25):
        network = DeepLab(replace(SMALL, dropout=share))
        assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == {share}
    with pytest.raises(ValueError, match="dropout must lie in 0"):
        replace(SMALL, dropout=1.0)


def test_encoder_of_depth_4_ends_at_layer3() -> None:
    names = DeepLab(SMALL).state_dict()
    assert any(".encoder.layer3." in name for name in names)
    assert not any(".encoder.layer4." in name for name in names)
    deeper = DeepLab(NetworkConfig("resnet18", 5, 16, 1)).state_dict()
    assert any(".encoder.layer4." in name for name in deeper)


def test_every_parameter_gets_a_gradient() -> None:
    network = DeepLab(SMALL).train()
    network(image(2, 5, 64, 64)).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_input_is_normalized_as_imagenet_wants_it() -> None:
    network, seen = DeepLab(SMALL).eval(), []
    network.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network(torch.tensor([0.485, 0.456 + 0.224, 0.406, 0.0, 1.0]).view(1, 5, 1, 1).expand(1, 5, 32, 32))
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0, -1.0, 1.0]))


@pytest.mark.parametrize("context", [0, 2, 3])
def test_encoder_file_fills_the_encoder_and_extra_channels_start_at_zero(
    tmp_path: Path, context: int
) -> None:
    given = encoder_file(tmp_path / "encoder.safetensors")
    network = DeepLab(
        NetworkConfig("resnet18", 4, 16, 1, context_channels=context), str(tmp_path / "encoder.safetensors")
    )
    held = network.body.encoder.state_dict()
    for name, value in given.items():
        torch.testing.assert_close(held[name][:, :3] if name == "conv1.weight" else held[name], value)
    assert held["conv1.weight"].shape[1] == 3 + context
    assert (held["conv1.weight"][:, 3:] == 0).all()


def test_context_changes_nothing_before_training_and_something_after_one_step(tmp_path: Path) -> None:
    encoder_file(tmp_path / "encoder.safetensors")
    network = DeepLab(SMALL, str(tmp_path / "encoder.safetensors")).eval()
    first, second = image(1, 5, 64, 64), image(1, 5, 64, 64)
    second[:, 3:] = 1 - second[:, 3:]
    with torch.inference_mode():
        assert torch.equal(network(first), network(second))
    network(first).square().mean().backward()
    gradient = network.body.encoder.conv1.weight.grad
    assert (gradient[:, 3:] != 0).any()


def test_files_that_do_not_fit_are_refused_with_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    whole = encoder_file(path)

    def refused(weights: dict[str, Tensor]) -> str:
        save_file(weights, path)
        with pytest.raises(ModelError) as raised:
            DeepLab(SMALL, str(path))
        assert str(raised.value).startswith(f"{path}: does not fit the encoder")
        assert "\n" not in str(raised.value)
        return str(raised.value)

    lacking = {name: value for name, value in whole.items() if name != "layer2.0.bn1.bias"}
    assert "lacks ['layer2.0.bn1.bias'], adds nothing" in refused(lacking)
    assert "lacks nothing, adds ['head.weight']" in refused(whole | {"head.weight": torch.zeros(2, 2)})
    # A whole ResNet as torchvision has it: what lies beyond the encoder is passed over.
    save_file(whole | {"fc.weight": torch.zeros(2, 2), "layer4.0.conv1.weight": torch.zeros(3)}, path)
    DeepLab(SMALL, str(path))
    assert "layer1.0.bn1.weight" in refused(whole | {"layer1.0.bn1.weight": torch.zeros(7)})
    path.write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"cannot be read as safetensors encoder weights"):
        DeepLab(SMALL, str(path))
    with pytest.raises(ModelError, match=r"gone\.safetensors: cannot be read"):
        DeepLab(SMALL, str(tmp_path / "gone.safetensors"))


def strides(network: DeepLab) -> list[tuple[int, int]]:
    """Stride of the 1 × 1 and the 3 × 3 convolution in the first bottleneck of layer2 and layer3."""
    encoder = network.body.encoder
    return [
        (stage[0].conv1.stride[0], stage[0].conv2.stride[0]) for stage in (encoder.layer2, encoder.layer3)
    ]


def test_files_of_the_original_resnet50_keep_its_strides(tmp_path: Path) -> None:
    spec = NetworkConfig("resnet50", 4, 16, 1)
    encoder_file(tmp_path / "resnet50_original.safetensors", "resnet50")
    network = DeepLab(spec, str(tmp_path / "resnet50_original.safetensors")).eval()
    assert strides(network) == [(2, 1), (2, 1)]
    assert strides(DeepLab(spec)) == [(1, 2), (1, 2)]
    with torch.inference_mode():
        features = network.body.encoder(image(1, 3, 64, 64))
    assert [feature.shape[-1] for feature in features] == [64, 32, 16, 8, 4]


@pytest.mark.parametrize("encoder", ["resnet18_any", "resnet50_original", "other_resnet50"])
def test_a_network_computes_the_same_after_a_stay_on_disk(tmp_path: Path, encoder: str) -> None:
    name = next(part for part in encoder.split("_") if part.startswith("resnet"))
    encoder_file(tmp_path / f"{encoder}.safetensors", name)
    spec = NetworkConfig(name, 4, 16, 1)
    network = DeepLab(spec, str(tmp_path / f"{encoder}.safetensors"))
    save_network(network, tmp_path / "network.safetensors")
    loaded = load_network(spec, tmp_path / "network.safetensors")
    # Random weights need the batch's own statistics to stay finite.
    features, again = (one.body.encoder.train()(image(2, 3, 64, 64))[-1] for one in (network, loaded))
    assert torch.isfinite(features).all()
    torch.testing.assert_close(again, features, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_real_encoders_load(shared: Path, name: str) -> None:
    path = shared / "encoders" / f"{name}_imagenet_stem_to_layer3.safetensors"
    network = DeepLab(NetworkConfig(name, 4, 16, 2, context_channels=2, classes=3), str(path)).eval()
    held, given = network.body.encoder.state_dict(), load_file(path)
    torch.testing.assert_close(held["layer3.1.conv1.weight"], given["layer3.1.conv1.weight"].float())
    if name == "resnet50":
        assert strides(network) == [(2, 1), (2, 1)]
    # Trained weights answer to structure; their activations neither vanish nor explode.
    with torch.inference_mode():
        features = network.body.encoder((image(1, 5, 128, 128) - 0.45) / 0.22)
    for feature in features[1:]:
        assert 0.01 < feature.std() < 10


def gradients(network: nn.Module, image: Tensor, bfloat16: bool) -> dict[str, Tensor]:
    copied = copy.deepcopy(network)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        output = copied(image)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    (output.float() * weights).sum().backward()
    return {name: p.grad.flatten() for name, p in copied.named_parameters() if p.grad is not None}


def test_dilated_convolutions_have_right_gradients_in_mixed_precision() -> None:
    # As in training: the encoder hands on channels-last features, here those of a crop of 512 pixels, for
    # which bfloat16 gradients of the depthwise convolution dilated by 12 were found to be unrelated noise.
    torch.manual_seed(0)
    aspp = DeepLab(SMALL).body.decoder.aspp.eval()
    features = image(1, 256, 32, 32).bfloat16().to(memory_format=torch.channels_last)
    exact, mixed = gradients(aspp, features.float(), False), gradients(aspp, features, True)
    assert sum("convs" in name for name in exact) > 10
    for name, gradient in exact.items():
        assert functional.cosine_similarity(gradient, mixed[name], dim=0) > 0.999, name


def test_gradients_in_mixed_precision_point_where_exact_ones_do() -> None:
    torch.manual_seed(0)
    network = DeepLab(SMALL).eval()  # batch norm's statistics given: two pixels of noise do not spread
    network.body.encoder.to(memory_format=torch.channels_last)
    batch = functional.interpolate(image(1, 5, 32, 32), scale_factor=16, mode="bilinear")
    exact, mixed = gradients(network, batch, False), gradients(network, batch, True)
    assert exact.keys() == mixed.keys()
    for name, gradient in exact.items():
        assert functional.cosine_similarity(gradient, mixed[name], dim=0) > 0.95, name


def test_served_network_is_pool_network_and_interpolate() -> None:
    network = DeepLab(CONTEXT_FREE).eval()
    whole = image(2, 3, 128, 128)
    with torch.inference_mode():
        blocks = whole.view(2, 3, 32, 4, 32, 4).mean((3, 5))
        expected = functional.interpolate(network(blocks), (128, 128), mode="bilinear", align_corners=False)
        served = ServedNetwork(network)(whole)
    assert served.shape == (2, 2, 128, 128)
    torch.testing.assert_close(served, expected)


def test_served_network_without_downsampling_is_the_network() -> None:
    network = DeepLab(NetworkConfig("resnet18", 4, 16, 1)).eval()
    with torch.inference_mode():
        assert torch.equal(ServedNetwork(network)(image(1, 3, 64, 64)), network(image(1, 3, 64, 64)))


def test_scales_are_averaged() -> None:
    torch.manual_seed(5)
    network = DeepLab(CONTEXT_FREE).eval()
    whole = image(1, 3, 256, 256)

    def at(side: int) -> Tensor:
        logits = network(functional.interpolate(whole, (side, side), mode="bilinear", align_corners=False))
        return functional.interpolate(logits, (256, 256), mode="bilinear", align_corners=False)

    with torch.inference_mode():
        usual = ServedNetwork(network)(whole)
        for scales, expected in (
            ((1.5,), at(96)),
            ((1.25, 1.5), (at(80) + at(96)) / 2),
            ((1.0, 1.25, 1.5), (usual + at(80) + at(96)) / 3),
        ):
            network.config = replace(CONTEXT_FREE, scales=scales)
            torch.testing.assert_close(ServedNetwork(network)(whole), expected)
