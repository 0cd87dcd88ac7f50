"""Networks that cannot be trained as the settings say: one line, before data are prepared."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_nuclei import drawn, write_dataset
from PIL import Image
from safetensors.torch import save_file
from training_cases import BC, TC, write_release

from softctm.cli import main
from softctm.errors import MissingPackageError, ModelError, UsageError
from softctm.networks.deeplab import DeepLab
from softctm.networks.trainable import check_trainable
from softctm.training.presets import PRESETS


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release, single images with cells, and nuclei with outlines."""
    folder = tmp_path_factory.mktemp("data")
    write_release(folder / "release", [[(50, 60, BC), (500, 300, TC)]] * 2)
    for place in ("images", "points"):
        (folder / "crchisto" / place).mkdir(parents=True)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "crchisto/images/a.png")
    (folder / "crchisto/points/a.csv").write_text("x,y,label\n5,6,1\n")
    write_dataset(folder / "nuclei", [drawn(str(i), i) for i in range(2)], typed=True)
    return folder


COMMANDS = {
    "cells": "train cells --data {}/release --folds 2",
    "pretrain": "pretrain cells --data crchisto={}/crchisto",
    "nuclei": "train nuclei --data {}/nuclei --folds 2",
    "points": "train points --data monuseg={}/nuclei --folds 2",
}
NO_COUPLING = "coupling=none does not go with the architecture mfovce-net"


@pytest.mark.parametrize(
    ("command", "setting", "message"),
    [
        ("cells", "cells.augmentation.crop=10", "cells.augmentation.crop=10: must be 32 at least"),
        ("cells", "cells.network.downsampling=128", "cells.augmentation.crop=896: must be 2048 at least"),
        ("cells", "cells.network.encoder=resnet99", "cells.network: deeplabv3plus with encoder resnet99"),
        ("cells", "tissue.network.depth=2", "tissue.network: deeplabv3plus with encoder resnet18 of depth 2"),
        ("cells", "cells.network.architecture=nuclei-unet", "cells.network: architecture nuclei-unet: needs"),
        ("pretrain", "cells.coupling=predicted", "cells.coupling=predicted: there is no tissue around"),
        ("pretrain", "cells.network.architecture=mfovce-net", f"cells.{NO_COUPLING}"),
        ("pretrain", "cells.augmentation.crop=10", "cells.augmentation.crop=10: must be 32 at least"),
        ("nuclei", "network.architecture=feature-sharing", "coupling=none does not go with the architecture"),
        ("nuclei", "network.encoder=resnet99", "network: nuclei-unet with encoder resnet99"),
        ("nuclei", "network.downsampling=3", "augmentation.crop=256: must be a multiple of 48"),
        ("nuclei", "augmentation.crop=72", "augmentation.crop=72: must be a multiple of 16"),
        ("points", "network.architecture=mfovce-net", NO_COUPLING),
        ("points", "augmentation.crop=65", "augmentation.crop=65: must be a multiple of 32"),
    ],
)
def test_one_line_names_the_setting(
    command: str, setting: str, message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = COMMANDS[command].format(data).split()
    assert main([*words, "--run", str(tmp_path / "run"), "--set", setting]) == UsageError.exit_code
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in line
    assert len(line) < 300
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "prefix", "batch"),
    [("cells", "cells.", 4), ("pretrain", "cells.", 4), ("nuclei", "", 8), ("points", "", 16)],
)
def test_a_batch_that_torchruns_processes_cannot_share_is_told_before_the_folder_is_claimed(
    command: str,
    prefix: str,
    batch: int,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    words = [*COMMANDS[command].format(data).split(), "--run", str(tmp_path / "run")]
    assert main([*words, "--set", f"{prefix}optimizer.batch={batch}"]) == UsageError.exit_code
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"a batch of {batch} in 1 part cannot be shared evenly by 3 processes; change batch or" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_all_presets_can_be_trained(name: str) -> None:
    preset = PRESETS[name]
    for task in preset.tasks:
        check_trainable(preset.of(task).network, preset.of(task).coupling)


WEIGHTS = {
    **COMMANDS,
    "tissue, with a start": "train all --data {}/release --start cells={}/pretrained",
}
LIBRARIES = ("segmentation_models_pytorch", "timm", "torchvision")
KNOWN = "unknown for resnet18; --encoder-weights takes a .safetensors file, or imagenet or ssl or swsl"


@pytest.fixture(scope="module")
def pretrained(data: Path) -> None:
    words = f"pretrain cells --data crchisto={data}/crchisto --run {data}/pretrained"
    assert main(f"{words} --set cells.optimizer.epochs=0 --set cells.target.kind=circle".split()) == 0


@pytest.mark.usefixtures("pretrained")
@pytest.mark.parametrize("command", sorted(WEIGHTS))
@pytest.mark.parametrize(
    ("weights", "message", "code"),
    [
        ("imagnet", f"encoder weights 'imagnet': {KNOWN}", UsageError.exit_code),
        ("/typo", f"encoder weights '/typo': {KNOWN}", UsageError.exit_code),
        ("typo.safetensors", "typo.safetensors: cannot be read as safetensors", ModelError.exit_code),
    ],
)
def test_encoder_weights_are_looked_at_before_anything_is_written(
    command: str,
    weights: str,
    message: str,
    code: int,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = WEIGHTS[command].replace("{}", str(data)).split()
    assert main([*words, "--run", str(tmp_path / "run"), "--encoder-weights", weights]) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_cellvits_encoder_weights_are_looked_at_too(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "nuclei", "--data", str(data / "nuclei"), "--run", str(tmp_path / "run")]
    words += ["--preset", "cellvit-256", "--encoder-weights", "imagnet"]
    assert main(words) == ModelError.exit_code
    assert "imagnet: is not there" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_that_cannot_be_downloaded_are_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    words = [*COMMANDS["cells"].format(data).split(), "--run", str(tmp_path / "run")]
    assert main([*words, "--encoder-weights", "imagenet"]) == ModelError.exit_code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "encoder weights 'imagenet' for resnet18: cannot be downloaded" in line
    assert "name a .safetensors file by --encoder-weights" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["cells", "nuclei", "points"])
@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("--fold 7", "--fold 7: there are folds 0 to 1"),
        ("--folds 99", "cannot be split into"),
    ],
)
def test_a_refused_fold_leaves_the_folder_to_another_run(
    command: str,
    refused: str,
    message: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*COMMANDS[command].format(data).split(), "--run", str(tmp_path / "run")]
    assert main([*words, *refused.split()]) == UsageError.exit_code
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_torchvision_that_does_not_fit_is_not_taken_for_a_wrong_setting(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    complaint = "operator torchvision::nms does not exist"
    (tmp_path / "torchvision.py").write_text(f"raise RuntimeError({complaint!r})")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] in LIBRARIES]:
        monkeypatch.delitem(sys.modules, name)
    words = [*COMMANDS["cells"].format(data).split(), "--run", str(tmp_path / "run")]
    assert main(words) == MissingPackageError.exit_code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"torchvision does not fit the installed torch ({complaint}); install both in one command" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (COMMANDS["cells"].replace("train cells", "train tissue"), "tissue.optimizer.epochs=0"),
        (COMMANDS["pretrain"], "cells.optimizer.epochs=0"),
        (COMMANDS["nuclei"], "optimizer.epochs=0"),
        (COMMANDS["points"] + " --set augmentation.crop=32", "optimizer.epochs=0"),
    ],
)
def test_a_trained_run_does_without_the_file_of_its_encoder(
    words: str, setting: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = tmp_path / "encoder.safetensors"
    body = DeepLab(PRESETS["compact"].tissue.network).body.encoder.state_dict()
    save_file({name: value.contiguous() for name, value in body.items()}, encoder)
    command = [*words.format(data).split(), "--run", str(tmp_path / "run"), "--set", setting]
    command += ["--encoder-weights", str(encoder)]
    assert main(command) == 0
    encoder.unlink()
    assert main(command) == 0
    shutil.rmtree(tmp_path / "run")
    assert main(command) == ModelError.exit_code
    assert "encoder.safetensors: cannot be read" in capsys.readouterr().err
