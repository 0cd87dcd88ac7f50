"""The loss of networks that see both patches, and the run that trains them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_cases import BC, TC, write_release

from softctm.cli import main
from softctm.datasets.ocelot import AnnotatedPair, load_release
from softctm.errors import UsageError
from softctm.networks.weights import load_network
from softctm.training.config import Preset, TargetConfig, with_settings
from softctm.training.cross_validation import EnsembleRun
from softctm.training.initialization import Start
from softctm.training.loop import LoopConfig
from softctm.training.losses import cell_loss, tissue_cross_entropy
from softctm.training.pair_arrays import PairArrays
from softctm.training.pair_training import pair_loss
from softctm.training.presets import PRESETS

TINY = [
    "cells.network.downsampling=8",
    "cells.network.decoder_channels=16",
    "cells.optimizer.epochs=1",
    "cells.optimizer.batch=2",
    "cells.target.kind=circle",
]
PATIENTS = ["TCGA-AA-0001", "TCGA-AA-0002", "TCGA-AA-0003", "TCGA-AA-0004"]
ROWS = [[(100 * k + 50, 60, BC), (500, 100 * k + 300, TC)] for k in range(4)]
OF_PAIRS = [name for name, preset in PRESETS.items() if preset.cells.sees_pair]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[AnnotatedPair]:
    return load_release(write_release(tmp_path_factory.mktemp("release"), ROWS, PATIENTS))


def preset(name: str, *settings: str) -> Preset:
    return with_settings(PRESETS[name], [*TINY, *settings])


def run_of(
    pairs: list[AnnotatedPair], folder: Path, recipe: Preset, start: Start | None = None
) -> EnsembleRun:
    run = EnsembleRun(pairs, folder, recipe, LoopConfig(bfloat16=False), None, start=start)
    run.prepare(2, 0)
    return run


@pytest.mark.parametrize("setting", ["crop=512", "magnified=2"])
def test_crops_that_networks_of_pairs_cannot_have_are_refused(
    setting: str, pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    name = f"tissue.augmentation.{setting}"
    with pytest.raises(UsageError, match=f"{name}: a network that sees both patches"):
        run_of(pairs, tmp_path / "run", preset("compact-joint", name))
    assert not (tmp_path / "run").exists()


def test_losses_of_both_maps_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.rand(2, 5, 8, 8, generator=generator)
    shares = torch.rand(2, 3, 8, 8, generator=generator).softmax(1)
    labels = torch.randint(-1, 2, (2, 8, 8), generator=generator)
    wanted = torch.cat([shares, labels[:, None].float()], 1)
    target = TargetConfig("soft", loss="cross-entropy")
    cells = cell_loss(target)(logits[:, :3], shares)
    tissue = tissue_cross_entropy(logits[:, 3:], labels)
    torch.testing.assert_close(pair_loss(target)(logits, wanted), cells + tissue)
    torch.testing.assert_close(pair_loss(target)(logits[:, :3], wanted), cells)


@pytest.mark.parametrize("name", OF_PAIRS)
def test_presets_fit_their_architecture(name: str, pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    run = run_of(pairs, tmp_path, PRESETS[name])
    assert run.preset.tasks == ("cells",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["cells.coupling=joint"], "cells.coupling=joint does not go with the architecture deeplabv3plus, "),
        (["cells.network.architecture=feature-sharing"], "feature-sharing, which takes joint; change"),
        (["cells.network.architecture=mfovce-net", "cells.coupling=joint"], "which takes image"),
        (["tissue.network.architecture=mfovce-net"], "tissue.coupling=predicted does not go with"),
    ],
)
def test_a_coupling_that_the_architecture_does_not_have_is_refused(
    pairs: list[AnnotatedPair], tmp_path: Path, settings: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run_of(pairs, tmp_path, with_settings(PRESETS["compact"], settings))


def test_arrays_have_every_pair_its_window_and_both_targets(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    arrays = run_of(pairs, tmp_path, preset("compact-joint")).cell_arrays()
    assert isinstance(arrays, PairArrays)
    assert [(window.x, window.y) for window in arrays.windows] == [(400 + 4 * k, 200) for k in range(4)]
    image, target = arrays.sample(1)
    assert image.shape == (7, 128, 128)
    # By hand: the window of pair 1 begins at pixel 404 / 8 = 50.5 and ends at 82.5, in rows 25 to 57.
    np.testing.assert_allclose(image[6, 30, [49, 50, 51, 81, 82, 83]], [0, 0.5, 1, 1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(image[6, [24, 25, 56, 57], 60], [0, 1, 1, 0], atol=1e-6)
    # The tissue is cancer in the left half, background in the right.
    assert (target[3, 10, [0, 63, 64, 127]] == torch.tensor([1.0, 1, 0, 0])).all()
    assert target[2, 400 // 8, 500 // 8] > 0.5  # the tumor cell


@pytest.mark.parametrize("name", ["compact-sharing", "compact-joint", "compact-mfovce"])
def test_a_network_of_pairs_is_trained_without_tissue_networks_and_goes_on(
    name: str, pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    run = run_of(pairs, tmp_path / "first", preset(name))
    network = run.train_cells(1)
    assert not (run.folder / "tissue").exists()
    stored = load_network(run.preset.cells.network, run.folder / "cells/fold1/network.safetensors")
    weights = stored.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())

    still = preset(name, "cells.optimizer.learning_rate=0", "cells.optimizer.weight_decay=0")
    again = run_of(pairs, tmp_path / "second", still, Start(run.folder)).train_cells(1)
    parameters = dict(again.named_parameters())
    assert all(torch.equal(weights[key], value) for key, value in parameters.items())
    # Its own tissue network is none that others could start from.
    assert not Start(run.folder).fits("tissue", run.preset.tissue.network)


def test_tissue_alone_is_nothing_that_it_could_train(
    pairs: list[AnnotatedPair], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(pairs[0].cell_csv.parents[3]), "--run", str(tmp_path), "--preset", "compact-joint"]
    assert main(["train", "tissue", *words]) == UsageError.exit_code
    assert "tissue: these cell networks see the tissue patch themselves" in capsys.readouterr().err
