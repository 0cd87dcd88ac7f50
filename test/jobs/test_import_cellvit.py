"""`softctm import cellvit`: what comes out computes what went in; everything else is refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tifffile
import torch
from cellvit_cases import CONFIG, REFERENCES, checkpoint, reference_image

from softctm.cli import main
from softctm.errors import ModelError
from softctm.networks.cellvit import CellViT, CellViTSpec
from softctm.networks.cellvit_checkpoint import read_checkpoint
from softctm.networks.onnx_export import export_onnx, largest_difference


@pytest.fixture
def reference(shared: Path) -> Path:
    return shared / "reference" / "cellvit"


def saved(document: Any, folder: Path) -> Path:
    path = folder / "checkpoint.pth"
    torch.save(document, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("encoder", REFERENCES)
def test_the_file_computes_the_references_outputs(reference: Path, tmp_path: Path, encoder: str) -> None:
    source = saved(checkpoint(reference, encoder), tmp_path)
    model = tmp_path / "model"
    command = ["import", "cellvit", str(source), "--output", str(model), "--size", "256", "--license", "mine"]
    assert main(command) == 0
    session = onnxruntime.InferenceSession(model / "cellvit.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    image = reference_image(reference).numpy()
    found = dict(zip(names, session.run(None, {"image": image}), strict=True))
    expected = np.load(reference / f"{REFERENCES[encoder][0]}_outputs.npz")
    assert set(names) == set(expected.files)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4, err_msg=name)
    both = session.run(None, {"image": np.concatenate([image, image[..., ::-1]])})
    np.testing.assert_allclose(both[0][:1], found["nuclei_binary_map"], atol=1e-4)
    manifest = json.loads((model / "model.json").read_text())
    assert manifest["task"] == "nuclei"
    assert manifest["licenses"] == ["mine"]
    assert manifest["stages"]["nuclei"]["heads"][2]["classes"][:2] == ["background", "neoplastic"]
    width = expected["tokens"].shape[1]
    tokens = {"name": "tokens", "width": width, "stride": 16, "activation": "none"}
    assert manifest["stages"]["nuclei"]["heads"][3] == tokens


@pytest.mark.slow
def test_embeddings_are_means_of_the_references_tokens(reference: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    expected = np.load(reference / "cellvit_256_outputs.npz")
    document = checkpoint(reference, "256")
    # The reference's networks see no nuclei: shift the map so that they see some in a third of the pixels.
    background, nucleus = expected["nuclei_binary_map"][0]
    bias = document["model_state_dict"]["nuclei_binary_map_decoder.decoder0_header.2.bias"]
    bias[1] -= float(np.quantile(nucleus - background, 2 / 3))
    model, out = tmp_path / "model", tmp_path / "out"
    source = str(saved(document, tmp_path))
    assert main(["import", "cellvit", source, "--output", str(model), "--size", "256"]) == 0
    image, device = str(reference / "input_256.png"), ("--device", "cpu")
    command = ["nuclei", image, "--output", str(out), "--weights", str(model), *device]
    assert main([*command, "--also", "embeddings.parquet"]) == 0
    rows = parquet.read_table(out / "input_256" / "embeddings.parquet")
    instances = tifffile.imread(out / "input_256" / "instances.tif")
    assert len(rows) > 4
    for number, vector in zip(rows["id"].to_pylist(), rows["embedding"].to_pylist(), strict=True):
        y, x = np.nonzero(instances == number)
        covered = np.array(sorted(set(zip(y // 16, x // 16, strict=True))))
        mean = expected["tokens"][0][:, covered[:, 0], covered[:, 1]].mean(axis=1)
        np.testing.assert_allclose(np.array(vector, np.float32), mean, rtol=1e-3, atol=2e-3)


def test_configuration_decides(reference: Path, tmp_path: Path) -> None:
    config = CONFIG | {
        "transformations.normalize.mean": [0.7, 0.6, 0.5],
        "dataset_config": {"nuclei_types": {"Background": 0, "A": 1, "B": 3, "C": 2, "D": 4, "E e": 5}},
    }
    found = read_checkpoint(saved(checkpoint(reference, "256", config=config), tmp_path))
    assert found.mean == (0.7, 0.6, 0.5)
    assert found.std == (0.5, 0.5, 0.5)
    assert found.types == ("background", "a", "c", "b", "d", "e_e")
    assert found.kind == "CellViT-256"


class Malicious:
    """Unpickled by an ordinary program, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "made_by_the_pickle"
    source = saved({"arch": "CellViT256", "model_state_dict": {}, "config": Malicious(trace)}, tmp_path)
    assert main(["import", "cellvit", str(source), "--output", str(tmp_path / "model")]) == 4
    message = capsys.readouterr().err.strip()
    assert message.startswith(f"error: {source}: refused")
    assert "mkdir" in message
    assert "\n" not in message
    assert not trace.exists()
    assert not (tmp_path / "model").exists()
    torch.load(source, weights_only=False)  # the trap works where it is sprung
    assert trace.exists()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = saved({"arch": "CellViT256", "model_state_dict": {"a": torch.zeros(1000)}}, tmp_path)
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:20], b"", b"no checkpoint at all"):
        path.write_bytes(data)
        with pytest.raises(
            ModelError, match=r"checkpoint\.pth: (cannot be read|is not a PyTorch checkpoint)"
        ) as raised:
            read_checkpoint(path)
        assert "\n" not in str(raised.value)
    for other in ("README.md", "model_weights/cell_fold0.onnx", "docs/images/demo.jpg"):
        path = Path(__file__).parents[2] / other
        with pytest.raises(ModelError, match=f"^{path}: is not a PyTorch checkpoint; give "):
            read_checkpoint(path)
    with pytest.raises(ModelError, match="not there"):
        read_checkpoint(tmp_path / "other.pth")


def test_other_kinds_are_named(tmp_path: Path) -> None:
    for arch in ("CellViT256Stardist", "CellViTSAMShared", None):
        with pytest.raises(ModelError, match=f"of kind {arch!r}"):
            read_checkpoint(saved({"arch": arch, "model_state_dict": {}, "config": {}}, tmp_path))
    with pytest.raises(ModelError, match="not a checkpoint, but a list"):
        read_checkpoint(saved([1], tmp_path))
    with pytest.raises(ModelError, match="no model_state_dict"):
        read_checkpoint(saved({"arch": "CellViT256", "state_dict": {}}, tmp_path))
    with pytest.raises(ModelError, match=r"lack encoder\.patch_embed"):
        read_checkpoint(saved({"arch": "CellViT256", "model_state_dict": {}}, tmp_path))


def test_weights_that_do_not_fit_are_named(reference: Path, tmp_path: Path) -> None:
    document = checkpoint(reference, "256")
    state = document["model_state_dict"]

    def refused(changes: dict[str, Any], config: dict[str, Any], match: str) -> None:
        changed = {name: value for name, value in (state | changes).items() if value is not None}
        with pytest.raises(ModelError, match=match):
            read_checkpoint(
                saved(document | {"model_state_dict": changed, "config": CONFIG | config}, tmp_path)
            )

    head = "nuclei_type_maps_decoder.decoder0_header.2"
    refused({}, {"data.num_nuclei_classes": 5}, "num_nuclei_classes is 5, but the weights have 6")
    five = {f"{head}.weight": torch.zeros(5, 64, 1, 1), f"{head}.bias": torch.zeros(5)}
    refused(five, {"data.num_nuclei_classes": 5}, "has 5 types, .* names none")
    refused({"extra": torch.zeros(1), "decoder0.0.block.0.bias": None}, {}, r"lacks \['decoder0.*extra")
    refused({"decoder0.0.block.0.bias": torch.zeros(31)}, {}, r"block\.0\.bias is \(31,\) where \(32,\)")
    refused({}, {"model.regression_loss": True}, "regression loss")
    refused({}, {"transformations.normalize.std": [1]}, "std must be three numbers")
    fake = {**state, "classifier_head.weight": torch.zeros(19, 256)}
    path = saved({"arch": "CellViTSAM", "model_state_dict": fake}, tmp_path)
    with pytest.raises(ModelError, match="384 wide in a checkpoint of kind CellViTSAM"):
        read_checkpoint(path)


@pytest.mark.parametrize("size", ["100", "32", "-16"])
def test_sizes_that_tokens_do_not_fill(tmp_path: Path, size: str) -> None:
    command = ["import", "cellvit", str(tmp_path / "x.pth"), "--output", str(tmp_path / "m"), "--size", size]
    assert main(command) == 2


def test_large_networks_are_stored_in_16_bits_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[set[int]] = []
    monkeypatch.setattr(
        onnx.checker,
        "check_model",
        lambda model: checked.append({tensor.data_type for tensor in model.graph.initializer}),
    )
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 40, 3), torch.nn.Conv2d(40, 3, 3)).eval()
    example = torch.rand(2, 3, 16, 16)

    class Outputs(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
            return (module(image),)

    path = tmp_path / "network.onnx"
    assert not export_onnx(Outputs(), example, ["y"], path)
    whole = path.stat().st_size
    assert largest_difference(Outputs(), path, example) < 1e-5
    assert export_onnx(Outputs(), example, ["y"], path, limit=6000)
    assert path.stat().st_size < 0.75 * whole
    # What is checked is what is written: the checker takes no model of more than 2 GB.
    assert [onnx.TensorProto.FLOAT16 in types for types in checked] == [False, True]
    assert 1e-7 < largest_difference(Outputs(), path, example) < 1e-2
    with pytest.raises(ModelError, match="even with 16-bit weights"):
        export_onnx(Outputs(), example, ["y"], path, limit=3000)


def test_sam_h_fits_into_one_file_with_16_bit_weights_only() -> None:
    with torch.device("meta"):
        network = CellViT(CellViTSpec("SAM-H"))
    size = sum(value.numel() for value in network.state_dict().values())
    assert 2 * size < 2**31 < 4 * size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "magnification"),
    [
        ("CellViT-256-x20", (), 20),
        ("x20", ("--magnification", "40"), 40),
        ("own", ("--magnification", "20"), 20),
    ],
)
def test_networks_of_20x_are_told_by_name_or_option(
    name: str, options: tuple[str, ...], magnification: int, reference: Path, tmp_path: Path
) -> None:
    source = saved(checkpoint(reference, "256"), tmp_path).rename(tmp_path / f"{name}.pth")
    model = tmp_path / "model"
    command = ["import", "cellvit", str(source), "--output", str(model), "--size", "64", *options]
    assert main(command) == 0
    manifest = json.loads((model / "model.json").read_text())
    assert manifest["stages"]["nuclei"]["input"]["mpp"] == 10 / magnification
    assert manifest["postprocessing"]["magnification"] == magnification
