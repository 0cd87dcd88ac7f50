"""Nuclei networks that begin where others ended: folds kept, types by name, from runs and from models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_nuclei import drawn, write_dataset
from safetensors.torch import load_file

from softctm.cli import main
from softctm.errors import TrainingError, UsageError
from softctm.training.nuclei.config import NUCLEI_PRESETS
from softctm.training.nuclei.folds import nuclei_folds
from softctm.training.nuclei.starts import NucleiStart, hand_on
from softctm.training.nuclei.task import build_nuclei_network

MODELS = Path(__file__).parents[2] / "model_weights"
TINY = ["optimizer.epochs=1", "optimizer.batch=2", "augmentation.crop=64", "network.decoder_channels=32"]
UNTRAINED = ["optimizer.epochs=0", *TINY[1:]]


def train(data: Path, run: Path, settings: list[str], *more: str) -> int:
    command = ["train", "nuclei", "--data", str(data), "--run", str(run), "--folds", "2", *more]
    return main([*command, "--validate-epochs", "0", *(w for s in settings for w in ("--set", s))])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "discs"
    write_dataset(folder, [drawn(str(i), i) for i in range(4)], typed=True)
    return folder


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both folds and the network of all images."""
    run = tmp_path_factory.mktemp("runs") / "first"
    assert train(data, run, TINY) == 0
    assert train(data, run, TINY, "--all-images") == 0
    return run


@pytest.fixture(scope="module")
def model(data: Path, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "discs"
    command = ["export", "nuclei", "--data", str(data), "--run", str(first), "--output", str(folder)]
    assert main([*command, "--name", "discs", "--license", "mine", "--size", "128"]) == 0
    return folder


@pytest.mark.parametrize(
    ("architecture", "head", "first"),
    [("unet", "body.segmentation_head.0", 4), ("nuclei-unet", "type_head.3", 0)],
)
def test_types_are_handed_on_by_name(architecture: str, head: str, first: int) -> None:
    config = NUCLEI_PRESETS["compact"]
    network = replace(config.network, decoder_channels=32, architecture=architecture)
    config = replace(config, network=network)
    old, new = build_nuclei_network(config, 3, 0), build_nuclei_network(config, 4, 0)
    before = {name: value.clone() for name, value in new.state_dict().items()}
    hand_on(old.state_dict(), new, ["background", "a", "b"], ["background", "b", "c", "a"])
    given, after = old.state_dict(), new.state_dict()
    for name in (f"{head}.{part}" for part in ("weight", "bias")):
        assert torch.equal(after[name][: first + 1], given[name][: first + 1])  # up to background
        assert torch.equal(after[name][first + 1], given[name][first + 2])
        assert torch.equal(after[name][first + 2], before[name][first + 2])
        assert torch.equal(after[name][first + 3], given[name][first + 1])
    rest = [name for name in given if head not in name]
    assert len(rest) > 50
    assert all(torch.equal(after[name], given[name]) for name in rest)


@pytest.mark.parametrize("fold", ["fold0", "fold1", "all"])
def test_a_run_goes_on_from_another_fold_by_fold(data: Path, first: Path, tmp_path: Path, fold: str) -> None:
    which = ["--all-images"] if fold == "all" else ["--fold", fold[-1]]
    assert train(data, tmp_path / "second", UNTRAINED, "--start", str(first), *which) == 0
    given, taken = (load_file(run / fold / "network.safetensors") for run in (first, tmp_path / "second"))
    assert given.keys() == taken.keys()
    assert all(torch.equal(given[name], taken[name]) for name in given)
    folds = [json.loads((run / "folds.json").read_text())["images"] for run in (first, tmp_path / "second")]
    assert folds[0] == folds[1]
    config = json.loads((tmp_path / "second/config.json").read_text())
    assert config["start"] == json.loads((first / "config.json").read_text())
    assert train(data, tmp_path / "second", UNTRAINED, *which) == 9  # a run without the start is another one


def test_another_slide_of_a_known_patient_is_in_the_patients_fold() -> None:
    """Otherwise it would be held out by a network whose start learned from the patient."""
    names = [f"TCGA-AA-{index:04d}" for index in range(10)]
    before = [drawn(f"monuseg/{name}-01Z-00-DX1", seed) for seed, name in enumerate(names)]
    after = [drawn(f"kumar/{name}-01A-01-TS1", seed) for seed, name in enumerate(names)]
    known = nuclei_folds(before, 3, 3, 0)
    folds = nuclei_folds([*after, drawn("kumar/other", 11)], 3, 3, 1, known)
    for old, new in zip(before, after, strict=True):
        assert folds[new.name] == known[old.name]
    with pytest.raises(UsageError, match="TCGA-AA-0000: in two folds"):
        nuclei_folds(after, 3, 3, 1, {**known, f"third/{names[0]}-DX2": (known[before[0].name] + 1) % 3})


def test_known_images_keep_their_folds() -> None:
    images = [drawn(f"x/{i}", i) for i in range(8)]
    free = nuclei_folds(images, 3, 2, 0)
    known = {name: 1 - fold for name, fold in list(free.items())[:3]}
    folds = nuclei_folds(images, 3, 2, 0, known)
    assert {name: folds[name] for name in known} == known
    assert sorted(folds.values()).count(0) == 4


def test_new_images_go_into_the_folds_that_the_start_has(
    data: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tmp_path / "more"
    write_dataset(more, [drawn(f"new{i}", 20 + i) for i in range(7)], typed=True)
    command = ["train", "nuclei", "--data", str(data), str(more), "--start", str(first), "--fold", "0"]
    command += [word for setting in UNTRAINED for word in ("--set", setting)]
    assert main([*command, "--run", str(tmp_path / "run")]) == 0
    folds = json.loads((tmp_path / "run" / "folds.json").read_text())
    assert folds["folds"] == 2
    assert set(folds["images"].values()) == {0, 1}
    assert main([*command, "--run", str(tmp_path / "other"), "--folds", "3"]) == 2
    assert "--folds 3: the networks to start from have 2 folds" in capsys.readouterr().err


def test_few_images_are_enough_where_none_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 3):
        own = tmp_path / f"own{number}"
        write_dataset(own, [drawn(str(i), i) for i in range(number)], typed=True)
        command = ["train", "nuclei", "--data", str(own), "--run", str(tmp_path / f"run{number}")]
        command += [word for setting in UNTRAINED for word in ("--set", setting)]
        assert main([*command, "--all-images"]) == 0
    assert json.loads((tmp_path / "run3" / "folds.json").read_text())["folds"] == 3
    command = ["train", "nuclei", "--data", str(own), "--run", str(tmp_path / "run"), "--folds", "5"]
    assert main([*command, "--all-images"]) == 2
    assert "--folds 5: 3 images of different patients" in capsys.readouterr().err
    assert main([*command[:-1], "0"]) == 2
    assert "--folds 0: 3 images of different patients" in capsys.readouterr().err
    command = ["train", "nuclei", "--data", str(tmp_path / "own1"), "--run", str(tmp_path / "run1")]
    assert main([*command, *(word for setting in UNTRAINED for word in ("--set", setting))]) == 2
    assert "--fold 0: holds out all images" in capsys.readouterr().err


def test_a_model_goes_on_with_images_that_it_does_not_know(
    first: Path, model: Path, tmp_path: Path, data: Path
) -> None:
    """Untrained, the network says what the file does, though batch statistics are measured anew."""
    write_dataset(tmp_path / "others", [drawn(f"new{i}", 10 + i) for i in range(4)], typed=True)
    assert train(tmp_path / "others", tmp_path / "run", UNTRAINED, "--start", str(model), "--fold", "0") == 0
    known = json.loads((model / "model.json").read_text())["training"]["known_images"]
    assert known == [f"discs/{i}" for i in range(4)]
    networks = []
    for path in (first / "all", tmp_path / "run" / "fold0"):
        start = NucleiStart(path.parent)
        networks.append(start._trained(None if path.name == "all" else 0, []))
    pixels = torch.from_numpy(drawn("a", 3).image.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        expected, found = (network(pixels).numpy() for network in networks)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()  # weights were stored in 16 bits
    assert train(data, tmp_path / "leaking", UNTRAINED, "--start", str(model), "--fold", "0") == 9
    assert not (tmp_path / "leaking").exists()
    assert train(data, tmp_path / "leaking", UNTRAINED, "--start", str(model), "--all-images") == 0


def test_what_was_known_before_is_not_forgotten_in_a_chain(
    data: Path, first: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on other images, begun with a run and with a model of the first ones; then these again."""
    others = tmp_path / "others"
    write_dataset(others, [drawn(f"new{i}", 10 + i) for i in range(4)], typed=True)
    by_fold, of_all = tmp_path / "by_fold", tmp_path / "of_all"
    assert train(others, by_fold, UNTRAINED, "--start", str(first)) == 0
    assert train(others, of_all, UNTRAINED, "--start", str(model)) == 0
    # From the run: the first images go back into the folds that never learned from them.
    assert train(data, tmp_path / "again", UNTRAINED, "--start", str(by_fold), "--fold", "0") == 0
    folds = [json.loads((run / "folds.json").read_text())["images"] for run in (first, tmp_path / "again")]
    assert folds[0] == folds[1]
    # From the model: no fold can hold them out, and neither can one of a model that is exported on the way.
    assert train(data, tmp_path / "leak", UNTRAINED, "--start", str(of_all), "--fold", "0") == 9
    assert "discs/0 and 3 others" in capsys.readouterr().err.strip().splitlines()[-1]
    assert train(others, of_all, UNTRAINED, "--start", str(model), "--all-images") == 0
    command = ["export", "nuclei", "--data", str(others), "--run", str(of_all), "--name", "n"]
    assert main([*command, "--output", str(tmp_path / "m"), "--license", "its", "--size", "128"]) == 0
    manifest = json.loads((tmp_path / "m" / "model.json").read_text())
    assert manifest["licenses"] == ["its", "mine"]  # it began with a model under another one
    known = manifest["training"]["known_images"]
    assert known == [*(f"discs/{i}" for i in range(4)), *(f"others/new{i}" for i in range(4))]
    assert main([*command, "--output", str(tmp_path / "n"), "--license", "mine", "--size", "100"]) == 2
    assert "--size 100: must be a multiple of 32" in capsys.readouterr().err


def test_a_model_that_does_not_say_what_it_knows_starts_no_folds(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = tmp_path / "silent"
    shutil.copytree(model, silent)
    document = json.loads((silent / "model.json").read_text())
    del document["training"]["known_images"]
    (silent / "model.json").write_text(json.dumps(document))
    assert train(data, tmp_path / "run", UNTRAINED, "--start", str(silent), "--fold", "0") == 9
    assert "does not say which images it learned from" in capsys.readouterr().err
    assert train(data, tmp_path / "run", UNTRAINED, "--start", str(silent), "--all-images") == 0
    command = ["export", "nuclei", "--data", str(data), "--run", str(tmp_path / "run"), "--name", "n"]
    assert main([*command, "--output", str(tmp_path / "m"), "--license", "mine", "--size", "128"]) == 0
    assert NucleiStart(tmp_path / "m").known is None  # nor does what was made of it


def test_a_model_replaces_one_of_its_task_alone(
    data: Path, first: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "export",
        "nuclei",
        "--data",
        str(data),
        "--run",
        str(first),
        "--name",
        "new",
        "--license",
        "m",
    ]
    own, other = tmp_path / "own", tmp_path / "other"
    shutil.copytree(model, own)
    assert main([*command, "--output", str(own), "--size", "128"]) == 0
    assert json.loads((own / "model.json").read_text())["name"] == "new"
    shutil.copytree(Path(__file__).parents[1] / "hand_set", other)
    before = (other / "model.json").read_bytes()
    assert main([*command, "--output", str(other), "--size", "128"]) == 6
    assert "is there already and `softctm export nuclei` did not make it" in capsys.readouterr().err
    assert (other / "model.json").read_bytes() == before


def test_the_default_model_starts_the_preset_that_it_was_made_by() -> None:
    start = NucleiStart(MODELS / "nuclei")
    start.check(NUCLEI_PRESETS["compact"])
    with pytest.raises(TrainingError, match="learned from consep/"):
        start.check_unknown(["consep/train_1"])
    start.check_unknown(["own/train_1"])


def test_the_same_folder_is_gone_on_with_by_the_same_recipe_only(
    data: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(first, tmp_path / "run")
    for more, match in (
        (["--seed", "1"], "another seed"),
        (["--precision", "float32"], "another precision"),
        (["--set", "oversampling=0.5"], "another config.oversampling;"),
    ):
        assert train(data, tmp_path / "run", TINY, "--fold", "0", *more) == 9
        assert match in capsys.readouterr().err.strip().splitlines()[-1]
    # A configuration that was written before a setting existed has the setting's default.
    path = tmp_path / "run" / "config.json"
    document = json.loads(path.read_text())
    del document["config"]["network"]["dropout"]
    path.write_text(json.dumps(document))
    assert train(data, tmp_path / "run", TINY, "--fold", "0") == 0


def test_settings_that_do_not_fit_each_other_are_refused_before_anything_is_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for settings, match in (
        (["optimizer.epochs=20"], "frozen_epochs=25: more than optimizer.epochs=20"),
        (["network=SAM-X"], "no encoder of CellViT"),
        (["optimizer.frozen_stages=2"], "is for ResNets"),
        (["augmentation.crop=100"], "must be a multiple of 16"),
    ):
        assert train(data, tmp_path / "run", settings, "--preset", "cellvit-256") == 2
        assert match in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_what_cannot_start_is_refused_in_a_line(
    data: Path, first: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"config": "text", "types": [], "tissues": []}')
    wider = ["network.decoder_channels=64"]
    for code, match, settings, more in (
        (3, "/nope: is not there; --start takes the folder of a run", UNTRAINED, ("--start", "/nope")),
        (3, "config.json: is missing; is", UNTRAINED, ("--start", tmp_path / "empty")),
        (3, "which networks of nuclei were trained; --start", UNTRAINED, ("--start", tmp_path / "other")),
        (4, "is a model of the task cell-points, not of nuclei; --start", UNTRAINED, ("--start", MODELS)),
        (9, "its networks are of another shape", [*UNTRAINED, *wider], ("--start", first)),
        (9, "discs/0 and 3 others of these images, so that no fold", UNTRAINED, ("--start", model)),
        (2, "leave --encoder-weights out", UNTRAINED, ("--start", first, "--encoder-weights", "imagenet")),
    ):
        assert train(data, tmp_path / match[:5], settings, "--fold", "0", *map(str, more)) == code
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert match in line
        assert "Error" not in line


def test_a_network_that_is_not_there_is_named(data: Path, first: Path) -> None:
    start = NucleiStart(first)
    with pytest.raises(TrainingError, match=r"fold7.*is not there; --start takes a run that has trained it"):
        start._trained(7, [])
