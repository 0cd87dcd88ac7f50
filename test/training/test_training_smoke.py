"""The commands from data to cells: train, stop, go on, export, validate, predict."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from training_cases import BC, TC, write_release

from softctm.cli import main
from softctm.datasets.ocelot import load_release
from softctm.datasets.patient_folds import read_folds
from softctm.errors import InputError, TrainingError
from softctm.model import load_model
from softctm.networks.network_config import NetworkConfig
from softctm.training.initialization import Start

pytestmark = pytest.mark.slow

PATIENCE_S = 1800
"""A machine that is busy with something else is slow, not wrong."""

TEST = Path(__file__).resolve().parents[1]
TINY = [
    "tissue.network.downsampling=16",
    "tissue.network.decoder_channels=16",
    "cells.network.downsampling=8",
    "cells.network.decoder_channels=16",
    *(f"{task}.optimizer.{setting}" for task in ("tissue", "cells") for setting in ("epochs=1", "batch=2")),
]
PATIENTS = ["TCGA-AA-0001", "TCGA-AA-0001", "TCGA-AA-0002", "TCGA-AA-0002"]


def arguments(release: Path, run: Path, task: str, *settings: str, more: tuple[str, ...] = ()) -> list[str]:
    changes = [word for setting in (*TINY, *settings) for word in ("--set", setting)]
    return ["train", task, "--data", str(release), "--run", str(run), "--folds", "2", *changes, *more]


def in_another_process(words: list[str], *launcher: str) -> list[str]:
    """The command line of `softctm` with these words, importable with what the tests' conftest mends."""
    code = "import sys, conftest\nfrom softctm.cli import main\nsys.exit(main(sys.argv[1:]))"
    if not launcher:
        return [sys.executable, "-c", code, *words]
    return [sys.executable, *launcher, *words]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(TEST), str(TEST.parent / "src")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def times(run: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(run.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    assert main(["phantom", str(folder), "--layout", "ocelot", "--pairs", "4", "--seed", "3"]) == 0
    return folder


@pytest.fixture(scope="module")
def flat_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quicker to make, for tests in which it does not matter what there is to see."""
    rows = [[(100 * k + 50, 60, BC), (500, 100 * k + 300, TC)] for k in range(4)]
    return write_release(tmp_path_factory.mktemp("flat"), rows, PATIENTS)


@pytest.fixture(scope="module")
def model(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder from `train all` and `export`."""
    folder = tmp_path_factory.mktemp("model")
    assert main(arguments(release, folder / "run", "all")) == 0
    done = times(folder / "run")
    assert main(arguments(release, folder / "run", "all")) == 0
    assert times(folder / "run") == done  # the second time there was nothing left to do
    words = ["--data", str(release), "--run", str(folder / "run"), "--output", str(folder / "weights")]
    assert main(["export", *words, "--name", "synthetic", "--license", "CC0", "--data-name", "phantom"]) == 0
    return folder


@pytest.mark.parametrize(("kind", "loss"), [("circle", "generalized-dice"), ("hard", "generalized-dice")])
def test_trains_on_the_other_targets(release: Path, tmp_path: Path, kind: str, loss: str) -> None:
    settings = [f"cells.target.kind={kind}", f"cells.target.loss={loss}"]
    assert main(arguments(release, tmp_path, "all", *settings)) == 0
    for place in ("tissue/fold0", "tissue/fold1", "cells/fold0", "cells/fold1"):
        weights = load_file(tmp_path / place / "network.safetensors")
        assert all(np.isfinite(value).all() for value in weights.values())
        assert (tmp_path / place / "metrics.csv").read_text().count("\n") == 2


def test_manifest_says_how_the_model_came_about(model: Path, release: Path) -> None:
    manifest = load_model(model / "weights").manifest  # which checks it
    tissue, cells = manifest.stages["tissue"], manifest.stages["cells"]
    assert [entry.files["float32"].path for entry in tissue.networks] == ["tissue_fold0.onnx"]
    assert [entry.fold for entry in cells.networks] == [0, 1]
    assert tissue.validation[0].files["float32"].path == "validation/tissue_fold1.onnx"
    assert manifest.licenses == ("CC0",)
    assert manifest.training["data"] == "phantom"
    assert manifest.training["pairs"] == 4
    assert manifest.training["patients"] == 2
    assert manifest.training["preset"]["cells"]["network"]["decoder_channels"] == 16
    assert 0 < manifest.training["largest_difference_from_pytorch"] <= 5e-3
    folds = read_folds(model / "weights/validation/folds.json").of_pair
    assert sorted(folds) == [pair.id for pair in load_release(release)]
    assert folds["001"] == folds["002"] != folds["003"] == folds["004"]


def test_a_released_model_goes_on_being_trained(model: Path, release: Path, tmp_path: Path) -> None:
    still = [f"{task}.optimizer.learning_rate=0" for task in ("tissue", "cells")]
    words = arguments(release, tmp_path, "all", *still, more=("--start", str(model / "weights")))
    words.remove("--folds")
    words.remove("2")
    assert main(words) == 0
    config = json.loads((model / "run/config.json").read_text())
    start = json.loads((tmp_path / "config.json").read_text())["start"]
    assert start == {**config, "licenses": ["CC0"], "attributions": []}
    assert read_folds(tmp_path / "folds.json") == read_folds(model / "run/folds.json")
    for place in ("tissue/fold1", "cells/fold0"):
        before = load_file(model / "run" / place / "network.safetensors")
        after = load_file(tmp_path / place / "network.safetensors")
        # Without a batch normalization behind it, the head comes back as it was, in 16 bits.
        name = "body.segmentation_head.0.weight"
        np.testing.assert_allclose(after[name], before[name], rtol=1e-3, atol=1e-6)


def test_what_cannot_be_trained_further_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model / "weights", tmp_path / "model")
    manifest = tmp_path / "model/model.json"
    document = json.loads(manifest.read_text())
    networks = document["stages"]["cells"]["networks"]
    networks.append({**networks[1], "fold": 0})
    manifest.write_text(json.dumps(document))
    start = Start(tmp_path / "model")
    with pytest.raises(TrainingError, match=r"model: has 2 cells networks that held out fold 0"):
        start.network("cells", 0)(NetworkConfig("resnet18", 4, 16, 8, context_channels=2, classes=3), [])
    del document["training"]
    manifest.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"model\.json: does not say which networks .*; --start takes"):
        Start(tmp_path / "model")


def test_validation_prints_the_table_and_fills_the_manifest(
    model: Path, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["validate", "--data", str(release), "--weights", str(model / "weights"), "--views", "1"]
    words += ["--work", str(tmp_path / "work"), "--device", "cpu"]
    for fold in ("0", "1"):
        assert main([*words, "--fold", fold]) == 0
    capsys.readouterr()
    words += ["--json", str(tmp_path / "figures.json"), "--update"]
    assert main(words) == 0  # from the counts of both folds, without predicting again
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["all"]["pairs"] == 4
    assert [entry["pairs"] for entry in figures["folds"].values()] == [2, 2]
    assert capsys.readouterr().out.splitlines()[1].startswith("all")
    manifest = load_model(model / "weights").manifest
    assert manifest.scores["float32"]["out_of_fold"] == figures
    assert manifest.postprocessing == {"method": "peaks", **figures["rule"]}


def test_detector_runs_the_trained_model(model: Path, release: Path, tmp_path: Path) -> None:
    words = ["predict", "--input", str(release), "--subset", "train", "--output", str(tmp_path)]
    assert main([*words, "--weights", str(model / "weights"), "--views", "1", "--device", "cpu"]) == 0
    document = json.loads((tmp_path / "cell_classification.json").read_text())
    assert document["type"] == "Multiple points"
    record = json.loads((tmp_path / "run.json").read_text())
    assert "synthetic" in json.dumps(record)


@pytest.mark.parametrize("name", ["sharing", "mfovce"])
def test_networks_of_pairs_go_the_same_way(release: Path, tmp_path: Path, name: str) -> None:
    more = ("--preset", f"compact-{name}")
    assert main(arguments(release, tmp_path / "run", "all", more=more)) == 0
    assert not (tmp_path / "run/tissue").exists()
    words = ["--data", str(release), "--run", str(tmp_path / "run"), "--output", str(tmp_path / "model")]
    assert main(["export", *words, "--name", name]) == 0
    manifest = load_model(tmp_path / "model").manifest
    assert manifest.task == "joint-cell-points"
    assert [entry.fold for entry in manifest.stages["cells"].networks] == [0, 1]
    learned = [head.name for head in manifest.stages["cells"].heads]
    assert learned == (["cells", "tissue"] if name == "sharing" else ["cells"])

    weights = ["--weights", str(tmp_path / "model"), "--views", "2", "--device", "cpu"]
    words = ["validate", "--data", str(release), *weights, "--json", str(tmp_path / "figures.json")]
    assert main([*words, "--update"]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["all"]["pairs"] == 4
    assert (figures["all"]["tissue_mean_f1"] is not None) == (name == "sharing")
    words = ["predict", "--input", str(release), "--subset", "train", "--output", str(tmp_path / "out")]
    assert main([*words, *weights]) == 0
    assert json.loads((tmp_path / "out/cell_classification.json").read_text())["type"] == "Multiple points"


def test_run_killed_by_the_system_goes_on_to_the_same_weights(flat_release: Path, tmp_path: Path) -> None:
    more = ("--fold", "1", "--checkpoint-minutes", "0", "--precision", "float32", "--validate-epochs", "0")
    epochs = "tissue.optimizer.epochs=6"
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    words = arguments(flat_release, killed, "tissue", epochs, more=more)
    process = subprocess.Popen(in_another_process(words), env=environment(), stdout=subprocess.DEVNULL)
    folder = killed / "tissue" / "fold1"
    limit = time.monotonic() + PATIENCE_S
    while not (folder / "checkpoint.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "network.safetensors").exists()
    for run in (killed, whole):
        words = arguments(flat_release, run, "tissue", epochs, more=more)
        subprocess.run(in_another_process(words), env=environment(), check=True, timeout=PATIENCE_S)
    ours, theirs = (load_file(run / "tissue/fold1/network.safetensors") for run in (killed, whole))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert (folder / "metrics.csv").read_text() == (whole / "tissue/fold1/metrics.csv").read_text()


def test_several_processes_train_an_ensemble_together(flat_release: Path, tmp_path: Path) -> None:
    script = tmp_path / "softctm_main.py"
    script.write_text("import sys, conftest\nfrom softctm.cli import main\nsys.exit(main(sys.argv[1:]))\n")
    # Batch norm needs two patches a process; without "--" torchrun takes --run for an option of its own.
    settings = ("tissue.optimizer.batch=4", "cells.optimizer.batch=4", "cells.target.kind=circle")
    words = arguments(flat_release, tmp_path / "run", "all", *settings)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--", str(script))
    subprocess.run(in_another_process(words, *launcher), env=environment(), check=True, timeout=PATIENCE_S)
    for place in ("tissue/fold0", "tissue/fold1", "cells/fold0", "cells/fold1"):
        assert load_file(tmp_path / "run" / place / "network.safetensors")


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = write_release(tmp_path / "release", [[(500, 500, TC)]] * 2)

    def error(*words: str) -> str:
        assert main([str(word) for word in words]) > 0
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    run = tmp_path / "run"
    assert "no 'epoch' here" in error(*arguments(release, run, "all", "cells.optimizer.epoch=3"))
    assert f"is {tmp_path} an OCELOT release?" in error(*arguments(tmp_path, run, "all"))
    assert "--fold 7: there are folds 0 to 1" in error(
        *arguments(release, run, "tissue", more=("--fold", "7"))
    )
    assert "run `softctm train tissue` for every fold first" in error(
        *arguments(release, run, "cells", more=("--fold", "0"))
    )
    assert "is not there yet; run `softctm train tissue --fold 0` first" in error(
        "export", "--data", release, "--run", run, "--output", tmp_path / "out", "--name", "none"
    )
    assert "config.json: is missing; is" in error(
        "export", "--data", release, "--run", tmp_path, "--output", tmp_path / "out", "--name", "none"
    )
    Image.new("RGB", (64, 64)).save(release / "images/train/tissue/002.jpg")
    assert "002.jpg: is 64 × 64 pixels; a patch must be 1024 × 1024" in error(
        *arguments(release, run, "tissue")
    )
