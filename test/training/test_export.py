"""Exported networks against PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from softctm.cli import main
from softctm.errors import InputError, ModelError, OutputError
from softctm.networks.deeplab import DeepLab
from softctm.networks.network_config import NetworkConfig
from softctm.networks.onnx_export import store_as_float16
from softctm.networks.served import ServedHeads, ServedNetwork
from softctm.training import model_export as export
from softctm.training.model_export import MAX_DIFFERENCE, export_network

SPEC = NetworkConfig("resnet18", 4, 16, 8, context_channels=2, classes=3)


@pytest.fixture(scope="module")
def network() -> DeepLab:
    torch.manual_seed(0)
    network = DeepLab(SPEC).eval()
    # Answers that differ from pixel to pixel, as a trained network's do.
    network.body.segmentation_head[0].weight.data *= 60
    return network


@pytest.fixture(scope="module")
def exported(network: DeepLab, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    path = tmp_path_factory.mktemp("export") / "new" / "cell.onnx"
    return path, export_network(network, path)


def patches(count: int) -> torch.Tensor:
    return torch.rand(count, 5, 1024, 1024, generator=torch.Generator().manual_seed(count))


def logits(path: Path, images: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"image": images.numpy()})
    return np.asarray(found)


def test_file_computes_what_pytorch_computes_for_any_batch(
    network: DeepLab, exported: tuple[Path, float]
) -> None:
    path, difference = exported
    assert 0 < difference <= MAX_DIFFERENCE
    for count in (1, 3):
        images = patches(count)
        with torch.inference_mode():
            expected = ServedNetwork(network)(images).softmax(1)
        found = torch.from_numpy(logits(path, images)).softmax(1)
        assert found.shape == (count, 3, 1024, 1024)
        assert expected.std(dim=(2, 3)).min() > 5 * MAX_DIFFERENCE  # there is something to get wrong
        assert (found - expected).abs().max() <= MAX_DIFFERENCE


def test_stated_difference_is_the_difference(network: DeepLab, exported: tuple[Path, float]) -> None:
    path, difference = exported
    images = torch.rand(2, 5, 1024, 1024, generator=torch.Generator().manual_seed(0))[:1]
    with torch.inference_mode():
        expected = ServedNetwork(network)(images).softmax(1)
    found = torch.from_numpy(logits(path, images)).softmax(1)
    assert difference == pytest.approx((found - expected).abs().max().item(), rel=1e-3)


def test_convolutions_are_stored_in_16_bits_and_computed_in_32(
    network: DeepLab, exported: tuple[Path, float]
) -> None:
    path, _ = exported
    graph = onnx.load(path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 20
    for node in convolutions:
        assert stored[casts[node.input[1]]].data_type == TensorProto.FLOAT16
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {
        TensorProto.FLOAT
    }
    parameters = sum(value.numel() for value in network.parameters())
    assert path.stat().st_size < 0.6 * 4 * parameters


def test_batch_is_dynamic_and_the_rest_is_fixed(exported: tuple[Path, float]) -> None:
    (image,) = onnx.load(exported[0]).graph.input
    batch, *others = image.type.tensor_type.shape.dim
    assert batch.dim_param
    assert [size.dim_value for size in others] == [5, 1024, 1024]
    assert not any(tensor.external_data for tensor in onnx.load(exported[0]).graph.initializer)


def test_network_that_differs_from_its_file_is_refused(
    network: DeepLab, exported: tuple[Path, float]
) -> None:
    path, _ = exported
    other = DeepLab(SPEC).eval()
    other.load_state_dict(network.state_dict())
    other.body.segmentation_head[0].bias.data += torch.tensor([0.0, 0.0, 0.1])
    with pytest.raises(ModelError, match=r"cell\.onnx: differs from PyTorch by 0\.\d+ in probability"):
        export._difference(ServedHeads(other).eval(), path, patches(1))
    other.body.segmentation_head[0].bias.data[:] = float("nan")
    with pytest.raises(ModelError, match=r"differs from PyTorch by nan"):
        export._difference(ServedHeads(other).eval(), path, patches(1))


def test_file_names_no_place_of_the_machine_that_made_it(exported: tuple[Path, float]) -> None:
    content = exported[0].read_bytes()
    assert b"site-packages" not in content
    assert str(Path(__file__).resolve().parents[2]).encode() not in content


def test_storing_twice_changes_nothing(exported: tuple[Path, float]) -> None:
    model = onnx.load(exported[0])
    before = model.SerializeToString()
    assert store_as_float16(model).SerializeToString() == before


@pytest.mark.parametrize("text", ["{}", '{"tissue": {"network": 3}}', "[]"])
def test_a_folder_that_is_no_run_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    options = [
        "--data",
        str(tmp_path),
        "--run",
        str(tmp_path),
        "--output",
        str(tmp_path / "out"),
        "--name",
        "x",
    ]
    assert main(["export", *options]) != 0
    last = capsys.readouterr().err.strip().splitlines()
    assert len(last) == 1
    assert "config.json: " in last[0]
    assert "not a run's configuration" in last[0] or "a run's folder?" in last[0]


def test_a_folder_of_other_files_is_not_written_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("theirs")
    options = ["--data", str(tmp_path), "--run", str(tmp_path), "--output", str(out), "--name", "x"]
    assert main(["export", *options]) == OutputError.exit_code
    assert "letter.txt is there already" in capsys.readouterr().err
    assert main(["export", *options, "--overwrite"]) == InputError.exit_code  # goes on, and misses the run
    assert [path.name for path in out.iterdir()] == ["letter.txt"]
