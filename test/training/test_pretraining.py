"""Pretraining on single images, and what training on pairs begins with afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_cases import BC, TC, write_release

from softctm.cli import main
from softctm.datasets.ocelot import AnnotatedPair, load_release
from softctm.errors import InputError, TrainingError, UsageError
from softctm.networks.network_config import NetworkConfig
from softctm.networks.weights import load_network
from softctm.training.config import with_settings
from softctm.training.cross_validation import EnsembleRun
from softctm.training.loop import LoopConfig
from softctm.training.presets import PRESETS, PRETRAINING_PRESETS
from softctm.training.starts import PretrainedStart, StartByTask, open_start, pretraining_datasets

TINY = (
    "network.downsampling=8",
    "network.decoder_channels=16",
    "optimizer.epochs=1",
    "optimizer.batch=2",
)
MODELS = Path(__file__).parents[2] / "model_weights"
PATIENTS = ["TCGA-AA-0001", "TCGA-AA-0002", "TCGA-AA-0003"]
ROWS = [[(100 * k + 50, 60, BC), (500, 100 * k + 300, TC)] for k in range(3)]


def tiny(task: str) -> list[str]:
    return [f"{task}.{setting}" for setting in (*TINY, *(["target.kind=circle"] if task == "cells" else []))]


def options(settings: list[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="module")
def crchisto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with a few points each."""
    folder = tmp_path_factory.mktemp("crchisto")
    (folder / "images").mkdir()
    (folder / "points").mkdir()
    for name in ("a", "b"):
        noise = np.random.default_rng(0).integers(0, 255, (380, 380, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"images/{name}.jpg")
        (folder / f"points/{name}.csv").write_text("x,y,label\n50,60,1\n200,100,2\n300,300,0\n")
    return folder


@pytest.fixture(scope="module")
def pretrained(crchisto: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    words = ["pretrain", "cells", "--data", f"crchisto={crchisto}", "--run", str(folder)]
    assert main([*words, *options(tiny("cells"))]) == 0
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[AnnotatedPair]:
    return load_release(write_release(tmp_path_factory.mktemp("release"), ROWS, PATIENTS))


def test_the_folder_says_what_was_pretrained_on_what(pretrained: Path) -> None:
    config = json.loads((pretrained / "config.json").read_text())
    assert (config["pretraining"], config["data"]) == ("cells", {"crchisto": 2})
    assert config["cells"]["network"]["context_channels"] == 0
    assert (pretrained / "cells" / "network.safetensors").exists()


def test_a_finished_folder_is_kept_and_another_configuration_refused(
    pretrained: Path, crchisto: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = pretrained / "cells" / "network.safetensors"
    before = network.read_bytes()
    config = json.loads((pretrained / "config.json").read_text())
    del config["cells"]["optimizer"]["tissue_factor"]  # as before there was such a setting
    (pretrained / "config.json").write_text(json.dumps(config))
    words = ["pretrain", "cells", "--data", f"crchisto={crchisto}", "--run", str(pretrained)]
    words += options(tiny("cells"))
    assert main(words) == 0
    assert network.read_bytes() == before
    assert main([*words, "--seed", "1"]) == TrainingError.exit_code
    assert "of a run with another" in capsys.readouterr().err


def test_cells_of_unknown_class_alone_are_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tmp_path / "data"
    for place in ("images", "instances"):
        (data / place).mkdir(parents=True)
    masks = np.zeros((128, 128), np.uint16)
    masks[20:30, 20:30], masks[60:70, 60:70] = 1, 2
    Image.fromarray(masks).save(data / "instances/a.png")
    Image.fromarray(np.full((128, 128, 3), 200, np.uint8)).save(data / "images/a.png")
    words = ["pretrain", "cells", "--data", f"monuseg={data}", "--run", str(tmp_path / "run")]
    assert main([*words, *options([*tiny("cells"), "cells.optimizer.epochs=0"])]) == 0
    assert (
        "learns from 1 images; cells: background cell 0, tumor cell 0, cell of unknown class 2" in caplog.text
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON (it is empty)"),
        ('{"pretraining": ', "is not valid JSON (line 1"),
        ("[1]", "holds a list or a single value"),
    ],
)
def test_a_damaged_configuration_is_named(
    crchisto: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    words = ["pretrain", "cells", "--data", f"crchisto={crchisto}", "--run", str(tmp_path)]
    assert main([*words, *options(tiny("cells"))]) == InputError.exit_code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{tmp_path / 'config.json'}: {message}" in line


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("crchisto", "must be NAME=PATH"),
        ("pannuke=x", "dataset 'pannuke': unknown"),
        ("crchisto={folder}", "has no tissue labels"),
    ],
)
def test_data_that_cannot_be_used_are_named(
    crchisto: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str, message: str
) -> None:
    words = ["pretrain", "tissue", "--data", data.format(folder=crchisto), "--run", str(tmp_path / "run")]
    assert main(words) == UsageError.exit_code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_fold_starts_from_the_pretrained_network(
    pretrained: Path, pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    settings = [*tiny("cells"), *tiny("tissue"), "cells.network.architecture=deeplabv3plus-after-aspp"]
    preset = with_settings(PRESETS["compact"], settings)
    start = open_start([f"cells={pretrained}"])
    run = EnsembleRun(pairs, tmp_path, preset, LoopConfig(), None, start=start)
    with pytest.raises(TrainingError, match="its tissue networks are of another shape"):
        run.prepare(3, 0)
    assert start is not None
    assert start.folds is None
    own = load_network(
        with_settings(PRETRAINING_PRESETS["compact-pretrain"], tiny("cells")).cells.network,
        pretrained / "cells" / "network.safetensors",
    )
    for fold in (0, 2):
        network = start.network("cells", fold)(preset.cells.network, []).eval()
        image = torch.rand(1, 5, 64, 64)
        with torch.inference_mode():
            torch.testing.assert_close(network(image), own(image[:, :3]))


def test_only_the_task_and_encoder_that_were_pretrained_fit(pretrained: Path) -> None:
    start = PretrainedStart(pretrained)
    assert start.fits("cells", NetworkConfig("resnet18", 4, 128, 1, classes=3))
    assert not start.fits("tissue", NetworkConfig("resnet18", 4, 16, 8))
    assert not start.fits("cells", NetworkConfig("resnet34", 4, 16, 8, classes=3))


def test_starts_by_task_keep_the_folds_of_the_one_that_knows_patients(
    pretrained: Path, pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    preset = with_settings(PRESETS["compact"], [*tiny("cells"), *tiny("tissue")])
    first = EnsembleRun(pairs, tmp_path / "first", preset, LoopConfig(), None)
    first.prepare(3, 5)
    start = open_start([f"tissue={first.folder}", f"cells={pretrained}"])
    assert isinstance(start, StartByTask)
    second = EnsembleRun(pairs, tmp_path / "second", preset, LoopConfig(), None, start=start)
    second.prepare(2, 0)
    assert second.fold_of() == first.fold_of()
    config = json.loads((second.folder / "config.json").read_text())
    assert config["start"]["cells"] == json.loads((pretrained / "config.json").read_text())
    second.prepare(2, 0)  # the same configuration again


def test_starts_that_would_mix_folds_are_refused(pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    preset = with_settings(PRESETS["compact"], [*tiny("cells"), *tiny("tissue")])
    for name, folds in (("two", 2), ("three", 3)):
        EnsembleRun(pairs, tmp_path / name, preset, LoopConfig(), None).prepare(folds, 0)
    with pytest.raises(TrainingError, match="have patients in different folds"):
        open_start([f"tissue={tmp_path / 'two'}", f"cells={tmp_path / 'three'}"])


def test_starts_without_task_or_with_two_are_refused(pretrained: Path) -> None:
    with pytest.raises(UsageError, match="name the task of each"):
        open_start([str(pretrained), f"cells={pretrained}"])
    with pytest.raises(UsageError, match="have another start already"):
        open_start([f"cells={pretrained}", f"cells={pretrained}"])
    assert open_start([]) is None


def test_what_a_run_started_from_is_remembered_through_further_rounds(pretrained: Path) -> None:
    config = json.loads((pretrained / "config.json").read_text())
    first = {"seed": 0, "start": {"cells": config}}
    second = {"seed": 0, "start": {"seed": 1, "start": {"cells": config, "tissue": {"seed": 0}}}}
    assert pretraining_datasets(first) == pretraining_datasets(second) == ["crchisto"]
    assert pretraining_datasets({"seed": 0, "start": {"seed": 1}}) == []


@pytest.mark.parametrize(
    ("start", "code", "message"),
    [
        ("/nope", 3, "/nope: is not there; --start takes a run's folder"),
        ("cells=/nope", 3, "/nope: is not there; --start takes a run's folder"),
        ("{}", 3, "config.json: is missing"),
        (
            "{}/nuclei-run",
            3,
            "config.json: does not say which networks of tissue or cells were trained; --start",
        ),
        ("{}/half", 3, "config.json: does not say what was pretrained; pretrain again"),
        (
            f"{MODELS}/nuclei",
            4,
            "is a model of the task nuclei, not of cell-points or joint-cell-points; --start",
        ),
        (
            f"foo={MODELS}",
            2,
            f"--start foo={MODELS}: is not there, nor a task foo; tasks are tissue and cells",
        ),
    ],
)
def test_a_start_that_is_none_is_named(
    start: str, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (
        ("nuclei-run", '{"preset": "compact", "config": {}}'),
        ("half", '{"pretraining": "cells"}'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    words = ["train", "all", "--data", "data", "--run", str(tmp_path / "run")]
    assert main([*words, "--start", start.format(tmp_path)]) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert "Error" not in line
