"""What a model folder may hold, and the one clear line for everything that it may not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_networks import network, write_folder, write_manifest

from softctm.errors import ModelError
from softctm.model import find as model_module
from softctm.model import network_file
from softctm.model.find import find_weights, holds_model
from softctm.model.manifest import json_schema, read_manifest
from softctm.model.model import load_model
from softctm.postprocessing.peaks import Peaks
from softctm.postprocessing.watershed import Watershed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "weights", folds=2)


def edit(folder: Path, change: Any) -> None:
    manifest = json.loads((folder / "model.json").read_text())
    change(manifest)
    (folder / "model.json").write_text(json.dumps(manifest))


def stage(manifest: Any, name: str) -> Any:
    return manifest["stages"][name]


def head(manifest: Any, name: str) -> Any:
    return stage(manifest, name)["heads"][0]


def files(manifest: Any) -> Any:
    return stage(manifest, "cells")["networks"][1]["files"]


def test_reads_a_manifest(folder: Path) -> None:
    rule = {"method": "peaks", "sigma_px": 2.5, "distance_px": 4, "threshold": 0.35}
    manifest = write_manifest(folder, postprocessing=rule, licenses=["CC-BY-NC-4.0"])
    model = load_model(folder)
    assert (model.name, model.version) == ("tiny", "1.2.3")
    assert [network.path.name for network in model.cells.networks] == ["cell_fold0.onnx", "cell_fold1.onnx"]
    assert [network.fold for network in model.cells.networks] == [0, 1]
    assert model.postprocessing == Peaks(2.5, 4, 0.35)
    assert model.manifest.licenses == ("CC-BY-NC-4.0",)
    assert (
        model.hashes["tissue.onnx"]
        == manifest["stages"]["tissue"]["networks"][0]["files"]["float32"]["sha256"]
    )
    for kept in model.cells.networks:
        assert kept.read() == kept.path.read_bytes()


def test_postprocessing_is_the_authors_rule_where_nothing_is_said(folder: Path) -> None:
    write_manifest(folder)
    assert load_model(folder).postprocessing == Peaks(3.0, 3, None)


def test_the_watershed_is_chosen_by_the_manifest(folder: Path) -> None:
    write_manifest(folder, postprocessing={"method": "watershed", "min_area_px": 30})
    assert load_model(folder).postprocessing == Watershed(min_area_px=30)


def test_without_a_manifest_the_authors_conventions_hold(folder: Path) -> None:
    (folder / "cell_fold10.onnx").write_bytes(network(9, 5, 3))
    model = load_model(folder)
    assert [network.path.stem for network in model.cells.networks] == [
        "cell_fold0",
        "cell_fold1",
        "cell_fold10",
    ]
    assert (model.tissue.head.activation, model.cells.head.activation) == (
        "logits",
        "probabilities",
    )
    assert model.postprocessing == Peaks()
    assert model.name == "weights"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["stages"].pop("cells"), "stages: must be tissue and cells"),
        (lambda m: m.pop("name"), "name: Field required"),
        (lambda m: m.update(schema_version=1), "schema_version 1 where 2 is wanted"),
        (lambda m: m.update(task="portraits"), "task: 'portraits' is not known; there are cell-points"),
        (lambda m: m.update(licence="MIT"), "licence: Extra inputs"),
        (lambda m: head(m, "cells").update(activation="softmax"), r"cells.heads\[0\].activation"),
        (lambda m: head(m, "cells").update(activation="none"), r"cells.heads\[0\].activation"),
        (lambda m: head(m, "cells")["classes"].reverse(), r"cells.heads\[0\].classes"),
        (lambda m: head(m, "tissue")["classes"].reverse(), r"tissue.heads\[0\].classes"),
        (lambda m: head(m, "tissue").update(classes=["cancer"]), r"tissue.heads\[0\].classes|channels"),
        (lambda m: stage(m, "tissue")["heads"].append(head(m, "tissue")), "tissue.heads: must be one"),
        (lambda m: stage(m, "tissue")["input"].update(mpp=0.2), "tissue.input.mpp: must be about 0.8"),
        (lambda m: stage(m, "cells")["input"].update(size=512), "cells.input.size: must be 1024"),
        (lambda m: stage(m, "cells")["input"]["channels"].pop(), "cells.input.channels: must be"),
        (lambda m: stage(m, "cells")["input"]["channels"].append("x.y"), "'x.y' is neither a color"),
        (lambda m: stage(m, "cells").update(networks=[]), "cells.networks"),
        (lambda m: files(m)["float32"].update(sha256="abc"), r"networks\[1\].files.float32.sha256"),
        (lambda m: files(m).clear(), r"networks\[1\].files"),
        (lambda m: files(m).update(int4={"path": "a", "sha256": "0" * 64}), "int4"),
        (lambda m: m.update(postprocessing={"method": "magic"}), "postprocessing.method: 'magic'"),
        (lambda m: m.update(postprocessing={}), "postprocessing.method"),
        (lambda m: m.update(postprocessing={"method": "peaks", "sigma": 2}), "postprocessing.sigma"),
        (lambda m: m.update(postprocessing={"method": "peaks", "sigma_px": -1}), "postprocessing: sigma_px"),
        (lambda m: m.update(postprocessing={"method": "peaks", "distance_px": "far"}), "distance_px"),
        (lambda m: files(m)["float32"].update(path="../elsewhere.onnx"), "outside"),
        (lambda m: files(m)["float32"].update(path="/etc/passwd"), "outside"),
        (lambda m: files(m)["float32"].update(path="a\\..\\b.onnx"), "outside"),
        (lambda m: files(m)["float32"].update(path="gone.onnx"), "gone.onnx: missing"),
        (lambda m: files(m)["float32"].update(path="a\0.onnx"), r"is no file's name"),
        (lambda m: files(m)["float32"].update(path="\ud800.onnx"), r"files.float32.path"),
        (lambda m: files(m)["float32"].update(path="a" * 300), "cannot be read .*File name too long"),
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


def test_a_link_to_itself_is_refused(folder: Path) -> None:
    write_manifest(folder)
    (folder / "cell_fold1.onnx").unlink()
    (folder / "cell_fold1.onnx").symlink_to("cell_fold1.onnx")
    with pytest.raises(ModelError, match=r"cell_fold1\.onnx: cannot be read .*; fetch the whole model"):
        load_model(folder)


def test_an_altered_file_is_refused_before_it_is_parsed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(folder)
    path = folder / "cell_fold1.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr(network_file.onnx, "load_model_from_string", lambda _: pytest.fail("parsed"))
    with pytest.raises(ModelError, match=r"cell_fold1\.onnx: SHA-256 differs"):
        load_model(folder).cells.networks[1].parse()


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\xff\xff\xff"])
def test_a_file_that_is_no_network_is_refused(folder: Path, content: bytes) -> None:
    (folder / "cell_fold0.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"cell_fold0\.onnx"):
        load_model(folder).cells.networks[0].parse()


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
        load_model(folder).cells.networks[0].parse()


@pytest.mark.parametrize("kind", ["tissue", "cell"])
def test_a_folder_without_one_kind_of_network_is_refused(folder: Path, kind: str) -> None:
    for path in folder.glob(f"{kind}*.onnx"):
        path.unlink()
    with pytest.raises(ModelError, match=rf"{kind}\*\.onnx"):
        load_model(folder)


def test_networks_without_a_manifest_come_in_the_order_of_their_numbers(folder: Path) -> None:
    (folder / "model.json").unlink(missing_ok=True)
    content = (folder / "cell_fold0.onnx").read_bytes()
    names = [
        "cell_fold0.onnx",
        "cell_fold1.onnx",
        "cell_fold2.onnx",
        "cell_fold10.onnx",
        "cell_fold10\u00b23.onnx",
    ]
    for name in names:
        (folder / name).write_bytes(content)
    assert [network.path.name for network in load_model(folder).cells.networks] == names


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        load_model(tmp_path / "gone")


def test_a_fold_gets_only_networks_that_never_saw_it(folder: Path) -> None:
    (folder / "validation").mkdir()
    further = folder / "validation/tissue_fold1.onnx"
    further.write_bytes(network(77, 3, 2))
    digest = hashlib.sha256(further.read_bytes()).hexdigest()
    write_manifest(folder)
    entry = {"fold": 1, "files": {"float32": {"path": "validation/tissue_fold1.onnx", "sha256": digest}}}
    edit(folder, lambda m: stage(m, "tissue").update(validation=[entry]))
    model = load_model(folder)
    assert [network.path for network in model.tissue.networks] == [folder / "tissue.onnx"]
    first, second = model.held_out(0), model.held_out(1)
    assert [network.path.name for network in first.networks] == ["tissue.onnx", "cell_fold0.onnx"]
    assert [network.path.name for network in second.networks] == ["tissue_fold1.onnx", "cell_fold1.onnx"]
    with pytest.raises(ModelError, match="no tissue network for which fold 2 was held out"):
        model.held_out(2)


def test_validation_networks_need_not_be_there(folder: Path) -> None:
    write_manifest(folder)
    missing = {"fold": 1, "files": {"float32": {"path": "validation/gone.onnx", "sha256": "0" * 64}}}
    edit(folder, lambda m: stage(m, "tissue").update(validation=[missing]))
    assert load_model(folder).tissue.validation[0].fold == 1


def test_a_precision_is_a_choice_of_files(folder: Path) -> None:
    write_manifest(folder)
    model = load_model(folder)
    assert model.precisions == ("float32",)
    assert model.in_precision("float16").hashes == model.hashes  # rewritten as they are opened
    with pytest.raises(ModelError, match=r"has no int8 networks, only float32; `softctm quantize`"):
        model.in_precision("int8")
    small = {}
    for name in ("tissue", "cell_fold0", "cell_fold1"):
        (folder / f"{name}_int8.onnx").write_bytes(b"small " + name.encode())
        digest = hashlib.sha256(b"small " + name.encode()).hexdigest()
        small[f"{name}.onnx"] = {"path": f"{name}_int8.onnx", "sha256": digest}

    def add(manifest: Any) -> None:
        for part in manifest["stages"].values():
            for entry in part["networks"]:
                entry["files"]["int8"] = small[entry["files"]["float32"]["path"]]

    edit(folder, add)
    model = load_model(folder)
    assert (model.precision, model.precisions) == ("float32", ("float32", "int8"))
    assert set(model.in_precision("int8").hashes.values()) == {entry["sha256"] for entry in small.values()}
    edit(folder, lambda m: files(m).pop("int8"))
    assert load_model(folder).precisions == ("float32",)


def test_what_is_written_is_what_is_read(folder: Path, tmp_path: Path) -> None:
    write_manifest(folder, scores={"float32": {"mean_f1": 0.5}}, attributions=["somebody"])
    manifest = load_model(folder).manifest
    manifest.write(tmp_path)
    assert read_manifest(tmp_path) == manifest


def test_the_schema_in_the_docs_is_generated_and_holds_for_the_default_model() -> None:
    root = Path(__file__).parents[2]
    document = json.loads((root / "docs/model.schema.json").read_text())
    assert document == json_schema(), "python scripts/model_schema.py > docs/model.schema.json"
    for model in ("model_weights", "test/hand_set"):
        jsonschema.validate(json.loads((root / model / "model.json").read_text()), document)


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
    program = tmp_path / "program/src/softctm/model/find.py"
    monkeypatch.setattr(model_module, "__file__", str(program))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "opt").mkdir()
    with pytest.raises(ModelError, match=r"no model found in .*opt.*model_weights"):
        find_weights(environment={}, platform_folder=tmp_path / "opt")
    here = write_folder(tmp_path / "model_weights")
    assert find_weights(environment={}, platform_folder=tmp_path / "opt").resolve() == here
    beside = write_folder(tmp_path / "program/model_weights")
    assert find_weights(environment={}, platform_folder=tmp_path / "opt") == beside
    with pytest.raises(ModelError, match=r"no model found in .*model_weights/nuclei"):
        find_weights(part="nuclei", environment={}, platform_folder=tmp_path / "opt")
    part = write_folder(tmp_path / "program/model_weights/nuclei")
    assert find_weights(part="nuclei", environment={}, platform_folder=tmp_path / "opt") == part


def test_a_named_folder_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--weights"):
        find_weights(tmp_path / "gone")
    with pytest.raises(ModelError, match="SOFTCTM_WEIGHTS"):
        find_weights(environment={"SOFTCTM_WEIGHTS": str(tmp_path / "gone")})


def test_knows_a_model_folder(folder: Path, tmp_path: Path) -> None:
    assert holds_model(folder)
    assert not holds_model(tmp_path)
    assert not holds_model(tmp_path / "gone")
