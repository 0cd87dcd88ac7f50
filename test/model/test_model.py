"""What a model folder may hold, and the one clear line for everything that it may not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_networks import network, write_folder, write_manifest

from softctm.errors import ModelError
from softctm.model import loading as model_module
from softctm.model import network_file
from softctm.model.loading import find_weights, holds_model, load_model
from softctm.postprocessing.peaks import Peaks
from softctm.postprocessing.watershed import HardMask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "weights", folds=2)


def edit(folder: Path, change: Any) -> None:
    manifest = json.loads((folder / "model.json").read_text())
    change(manifest)
    (folder / "model.json").write_text(json.dumps(manifest))


def test_reads_a_manifest(folder: Path) -> None:
    rule = {"method": "peaks", "sigma_px": 2.5, "distance_px": 4, "threshold": 0.35}
    manifest = write_manifest(folder, postprocessing=rule, license="CC-BY-NC-4.0")
    model = load_model(folder)
    assert (model.name, model.version) == ("tiny", "1.2.3")
    assert [network.path.name for network in model.cell.networks] == ["cell_fold0.onnx", "cell_fold1.onnx"]
    assert [network.fold for network in model.cell.networks] == [0, 1]
    assert model.postprocessing == Peaks(2.5, 4, 0.35)
    assert model.manifest["license"] == "CC-BY-NC-4.0"
    assert model.hashes["tissue.onnx"] == manifest["tissue"]["networks"][0]["sha256"]
    for kept in model.cell.networks:
        assert kept.read() == kept.path.read_bytes()


def test_postprocessing_is_the_authors_rule_where_nothing_is_said(folder: Path) -> None:
    write_manifest(folder)
    assert load_model(folder).postprocessing == Peaks(3.0, 3, None)


def test_hard_mask_is_chosen_by_the_manifest(folder: Path) -> None:
    write_manifest(folder, postprocessing={"method": "hard_mask", "min_area_px": 30})
    assert load_model(folder).postprocessing == HardMask(min_area_px=30)


def test_without_a_manifest_the_authors_conventions_hold(folder: Path) -> None:
    (folder / "cell_fold10.onnx").write_bytes(network(9, 5, 3))
    model = load_model(folder)
    assert [network.path.stem for network in model.cell.networks] == [
        "cell_fold0",
        "cell_fold1",
        "cell_fold10",
    ]
    assert (model.tissue.output, model.cell.output) == ("logits", "probabilities")
    assert model.postprocessing == Peaks()
    assert model.name == "weights"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("cell"), "'cell' is a required property"),
        (lambda m: m.update(schema_version=2), "schema_version"),
        (lambda m: m["cell"].update(output="softmax"), "cell.output"),
        (lambda m: m["cell"].update(classes=["none", "tumor_cell", "background_cell"]), "cell.classes"),
        (lambda m: m["tissue"].update(classes=["cancer"]), "tissue.classes"),
        (lambda m: m["tissue"].update(classes=["cancer", "background"]), "tissue.classes"),
        (lambda m: m["tissue"].update(mpp=0.2), "tissue.mpp"),
        (lambda m: m["cell"].update(input_size=512), "cell.input_size"),
        (lambda m: m["cell"].update(networks=[]), "cell.networks"),
        (lambda m: m["cell"]["networks"][1].update(sha256="abc"), r"cell.networks\[1\].sha256"),
        (lambda m: m.update(postprocessing={"method": "magic"}), "postprocessing"),
        (lambda m: m.update(postprocessing={"method": "peaks", "sigma": 2}), "postprocessing"),
        (lambda m: m.update(postprocessing={"method": "peaks", "sigma_px": -1}), "postprocessing"),
        (lambda m: m["cell"]["networks"][0].update(file="../elsewhere.onnx"), "outside"),
        (lambda m: m["cell"]["networks"][0].update(file="/etc/passwd"), "outside"),
        (lambda m: m["cell"]["networks"][0].update(file="a\\..\\b.onnx"), "outside"),
        (lambda m: m["cell"]["networks"][0].update(file="gone.onnx"), "gone.onnx: missing"),
    ],
)
def test_a_faulty_manifest_is_refused_by_name(folder: Path, change: Any, message: str) -> None:
    write_manifest(folder)
    edit(folder, change)
    with pytest.raises(ModelError, match=message) as error:
        load_model(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"", b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.json"):
        load_model(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    write_manifest(folder)
    outside = tmp_path / "outside.onnx"
    (folder / "cell_fold1.onnx").rename(outside)
    (folder / "cell_fold1.onnx").symlink_to(outside)
    with pytest.raises(ModelError, match="outside"):
        load_model(folder)


def test_an_altered_file_is_refused_before_it_is_parsed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(folder)
    path = folder / "cell_fold1.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr(network_file.onnx, "load_model_from_string", lambda _: pytest.fail("parsed"))
    with pytest.raises(ModelError, match=r"cell_fold1\.onnx: SHA-256 differs"):
        load_model(folder).cell.networks[1].read()


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\xff\xff\xff"])
def test_a_file_that_is_no_network_is_refused(folder: Path, content: bytes) -> None:
    (folder / "cell_fold0.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"cell_fold0\.onnx"):
        load_model(folder).cell.networks[0].read()


@pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph"])
def test_weights_in_another_file_are_refused(folder: Path, place: str) -> None:
    path = folder / "cell_fold0.onnx"
    document = onnx.load(path)
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "far")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    if place == "initializer":
        document.graph.initializer.append(tensor)
    elif place == "attribute":
        document.graph.node.append(onnx.helper.make_node("Constant", [], ["far"], value=tensor))
    else:
        body = onnx.helper.make_graph(
            [onnx.helper.make_node("Constant", [], ["far"], value=tensor)], "b", [], []
        )
        document.graph.node.append(
            onnx.helper.make_node("If", ["c"], ["d"], then_branch=body, else_branch=body)
        )
    path.write_bytes(document.SerializeToString())
    with pytest.raises(ModelError, match=r"cell_fold0\.onnx: keeps weights in another file"):
        load_model(folder).cell.networks[0].read()


@pytest.mark.parametrize("kind", ["tissue", "cell"])
def test_a_folder_without_one_kind_of_network_is_refused(folder: Path, kind: str) -> None:
    for path in folder.glob(f"{kind}*.onnx"):
        path.unlink()
    with pytest.raises(ModelError, match=rf"{kind}\*\.onnx"):
        load_model(folder)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        load_model(tmp_path / "gone")


def test_a_fold_gets_only_networks_that_never_saw_it(folder: Path) -> None:
    (folder / "validation").mkdir()
    further = folder / "validation/tissue_fold1.onnx"
    further.write_bytes(network(77, 3, 2))
    digest = hashlib.sha256(further.read_bytes()).hexdigest()
    write_manifest(
        folder,
        validation={"tissue": [{"file": "validation/tissue_fold1.onnx", "sha256": digest, "fold": 1}]},
    )
    model = load_model(folder)
    assert model.folds == (0, 1)
    assert [network.path for network in model.tissue.networks] == [folder / "tissue.onnx"]
    first, second = model.for_fold(0), model.for_fold(1)
    assert [network.path.name for network in (*first.tissue.networks, *first.cell.networks)] == [
        "tissue.onnx",
        "cell_fold0.onnx",
    ]
    assert [network.path.name for network in (*second.tissue.networks, *second.cell.networks)] == [
        "tissue_fold1.onnx",
        "cell_fold1.onnx",
    ]
    with pytest.raises(ModelError, match="no tissue network that was kept from fold 2"):
        model.for_fold(2)


def test_validation_networks_need_not_be_there(folder: Path) -> None:
    missing = {"file": "validation/tissue_fold1.onnx", "sha256": "0" * 64, "fold": 1}
    write_manifest(folder, validation={"tissue": [missing]})
    assert load_model(folder).validation_tissue[0].fold == 1


def test_look_up_order(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform, flag, variable = tmp_path / "opt", tmp_path / "flag", tmp_path / "variable"
    for path in (platform, flag, variable):
        path.mkdir()
    environment = {"SOFTCTM_WEIGHTS": str(variable)}
    assert find_weights(flag, environment=environment, platform_folder=platform) == flag
    assert find_weights(environment=environment, platform_folder=platform) == variable
    write_folder(platform)
    assert find_weights(environment={}, platform_folder=platform) == platform


def test_look_up_goes_on_where_the_platforms_folder_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program/src/softctm/model/loading.py"
    monkeypatch.setattr(model_module, "__file__", str(program))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "opt").mkdir()
    with pytest.raises(ModelError, match=r"no model found in .*opt.*model_weights"):
        find_weights(environment={}, platform_folder=tmp_path / "opt")
    here = write_folder(tmp_path / "model_weights")
    assert find_weights(environment={}, platform_folder=tmp_path / "opt").resolve() == here
    beside = write_folder(tmp_path / "program/model_weights")
    assert find_weights(environment={}, platform_folder=tmp_path / "opt") == beside


def test_a_named_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--weights"):
        find_weights(tmp_path / "gone")
    with pytest.raises(ModelError, match="SOFTCTM_WEIGHTS"):
        find_weights(environment={"SOFTCTM_WEIGHTS": str(tmp_path / "gone")})


def test_knows_a_model_folder(folder: Path, tmp_path: Path) -> None:
    assert holds_model(folder)
    assert not holds_model(tmp_path)
    assert not holds_model(tmp_path / "gone")
