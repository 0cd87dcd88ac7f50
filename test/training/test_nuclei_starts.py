"""Nuclei networks that begin where others ended: folds kept, types by name, from runs and from models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nuclei_cases import drawn, write_dataset
from safetensors.torch import load_file

from softctm.cli import main
from softctm.errors import TrainingError, UsageError
from softctm.training.image_folds import nuclei_folds
from softctm.training.nuclei_config import NUCLEI_PRESETS
from softctm.training.nuclei_starts import NucleiStart, hand_on
from softctm.training.nuclei_task import build_nuclei_network

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


def test_known_images_keep_their_folds() -> None:
    images = [drawn(f"x/{i}", i) for i in range(8)]
    free = nuclei_folds(images, 3, 2, 0)
    known = {name: 1 - fold for name, fold in list(free.items())[:3]}
    folds = nuclei_folds(images, 3, 2, 0, known)
    assert {name: folds[name] for name in known} == known
    assert sorted(folds.values()).count(0) == 4
    with pytest.raises(UsageError, match="--folds 2: the networks to start from have 5 folds"):
        nuclei_folds(images, 3, 2, 0, {"x/0": 4})


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
    assert train(data, tmp_path / "leaking", UNTRAINED, "--start", str(model), "--all-images") == 0


def test_what_cannot_start_is_refused_in_a_line(
    data: Path, first: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    wider = ["network.decoder_channels=64"]
    for code, match, settings, more in (
        (9, "does not say which networks of nuclei were trained", UNTRAINED, ("--start", tmp_path / "empty")),
        (9, "its networks are of another shape", [*UNTRAINED, *wider], ("--start", first)),
        (9, "discs/0 and 3 others of these images, so that no fold", UNTRAINED, ("--start", model)),
        (2, "leave --encoder-weights out", UNTRAINED, ("--start", first, "--encoder-weights", "imagenet")),
    ):
        assert train(data, tmp_path / match[:5], settings, "--fold", "0", *map(str, more)) == code
        assert match in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_network_that_is_not_there_is_named(data: Path, first: Path) -> None:
    start = NucleiStart(first)
    with pytest.raises(TrainingError, match=r"fold7.*is not there; --start takes a run that has trained it"):
        start._trained(7, [])
