"""A run: no patient leaks into what its networks see, and nothing is done twice or mixed up."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from training_cases import BC, TC, write_release

from softctm.cli import main
from softctm.datasets.ocelot import TISSUE_BACKGROUND, TISSUE_CANCER, AnnotatedPair, load_release
from softctm.datasets.patient_folds import read_folds
from softctm.errors import InputError, MissingPackageError, TrainingError, UsageError
from softctm.networks.deeplab import DeepLab
from softctm.training.arrays import TrainingArrays
from softctm.training.augment import augment
from softctm.training.cell_context import annotated_tissue
from softctm.training.config import Preset, Task, with_settings
from softctm.training.cross_validation import EnsembleRun
from softctm.training.fold_training import FoldJob, predict_tissue, train_cells, train_tissue
from softctm.training.initialization import Start, from_encoder
from softctm.training.loop import LoopConfig
from softctm.training.pair_weights import PairWeights
from softctm.training.presets import PRESETS

TINY = [
    "tissue.network.downsampling=16",
    "tissue.network.decoder_channels=16",
    "tissue.optimizer.epochs=1",
    "tissue.optimizer.batch=2",
    "cells.network.downsampling=8",
    "cells.network.decoder_channels=16",
    "cells.optimizer.epochs=1",
    "cells.optimizer.batch=2",
    "cells.target.kind=circle",
]
PATIENTS = ["TCGA-AA-0001", "TCGA-AA-0002", "TCGA-AA-0001", "TCGA-AA-0003", "TCGA-AA-0004"]
ROWS = [[(100 * k + 50, 60, BC), (500, 100 * k + 300, TC)] for k in range(5)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[AnnotatedPair]:
    return load_release(write_release(tmp_path_factory.mktemp("release"), ROWS, PATIENTS))


def preset(*settings: str) -> Preset:
    return with_settings(PRESETS["compact"], [*TINY, *settings])


def run_of(pairs: Sequence[AnnotatedPair], folder: Path, *settings: str, folds: int = 3) -> EnsembleRun:
    run = EnsembleRun(pairs, folder, preset(*settings), LoopConfig(bfloat16=False), None)
    run.prepare(folds, 0)
    return run


def says(share: float, run: EnsembleRun) -> DeepLab:
    """A tissue network that finds this share of cancer everywhere."""
    network = DeepLab(run.preset.tissue.network)
    head = network.body.segmentation_head[0]
    torch.nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor([0.0, math.log(share / (1 - share))])
    return network


def put_tissue_networks(run: EnsembleRun) -> None:
    """Tissue networks that identify themselves: that of fold k finds 0.2 + 0.2 k of cancer."""
    for fold in sorted(set(run.fold_of())):
        folder = run.folder / "tissue" / f"fold{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: value.contiguous() for name, value in says(0.2 + 0.2 * fold, run).state_dict().items()}
        save_file(state, folder / "network.safetensors")


def test_tissue_that_a_cell_network_sees_comes_from_the_network_that_never_saw_the_patient(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    run = run_of(pairs, tmp_path)
    put_tissue_networks(run)
    folds = run.fold_of()
    assert folds[0] == folds[2]  # one patient
    assert set(folds) == {0, 1, 2}
    context = run.cell_arrays().context
    assert context is not None
    assert context.shape == (5, 2, 128, 128)
    for index, fold in enumerate(folds):
        np.testing.assert_allclose(context[index, 1], 0.2 + 0.2 * fold, atol=2e-3)
        np.testing.assert_allclose(context[index, 0], 0.8 - 0.2 * fold, atol=2e-3)


def test_new_tissue_networks_give_new_context(pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    run = run_of(pairs, tmp_path)
    put_tissue_networks(run)
    run.cell_arrays()
    fold = run.fold_of()[0]
    path = tmp_path / "tissue" / f"fold{fold}" / "network.safetensors"
    save_file({n: v.contiguous() for n, v in says(0.9, run).state_dict().items()}, path)
    context = run.cell_arrays().context
    assert context is not None
    np.testing.assert_allclose(context[0, 1], 0.9, atol=2e-3)


def test_annotated_coupling_shows_the_annotation_in_the_window(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    context = run_of(pairs, tmp_path, "cells.coupling=annotated").cell_arrays().context
    assert context is not None
    for index in range(len(pairs)):
        # The window begins at column 400 + 4 k; cancer ends at column 512 of the tissue patch.
        border = (512 - 400 - 4 * index) // 2
        assert (context[index, 1, :, : border - 2] > 0.95).all()
        assert (context[index, 1, :, border + 2 :] < 0.05).all()
        np.testing.assert_allclose(context[index].astype(float).sum(0), 1, atol=2e-3)


def test_unknown_tissue_is_shared_between_both_classes(pairs: list[AnnotatedPair]) -> None:
    shares = annotated_tissue(pairs[0])
    assert (shares[:, -1] == 0.5).all()
    assert (shares[:, 0, 0] == [0, 1]).all()
    assert (shares[:, 0, -1] == [1, 0]).all()


def test_without_coupling_cell_networks_see_the_cell_patch_alone(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    run = run_of(pairs, tmp_path, "cells.coupling=none")
    assert run.cell_arrays().context is None
    network = run.train_cells(1)  # needs no tissue network
    assert network.config.context_channels == 0
    assert run.cell_network(1).config == network.config


def test_cell_networks_wait_for_the_tissue_networks_of_all_folds(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    run = run_of(pairs, tmp_path)
    with pytest.raises(TrainingError, match=r"tissue networks of fold 0, 1, 2 are not there yet"):
        run.train_cells(0)
    with pytest.raises(TrainingError, match=r"is not there yet; run `softctm train tissue --fold 1` first"):
        run.tissue_network(1)


@dataclass(frozen=True)
class WatchedArrays(TrainingArrays):
    """Remembers which patches were seen."""

    seen: list[int] = field(default_factory=list)

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        self.seen.append(int(index))
        return super().sample(index)


@pytest.mark.parametrize("task", ["tissue", "cells"])
def test_networks_are_trained_without_their_folds_patients(
    pairs: list[AnnotatedPair], tmp_path: Path, task: str
) -> None:
    random = np.random.default_rng(0)
    side = 64 if task == "tissue" else 128
    images = random.integers(0, 256, (5, 3, side, side)).astype(np.uint8)
    labels = random.integers(0, 2, (5, side, side)).astype(np.int8)
    shares = random.integers(0, 127, (5, 2, side, side)).astype(np.uint8)
    watched = WatchedArrays(images, labels if task == "tissue" else shares, random.random((5, 2)))
    loop = LoopConfig(bfloat16=False, validate_epochs=0)
    folds = [0, 1, 0, 2, 2]
    for fold in (0, 2):
        watched.seen.clear()
        job = FoldJob(fold, folds, from_encoder(None), loop, tmp_path / f"{task}{fold}", PATIENTS)
        if task == "tissue":
            train_tissue(with_epochs(preset(), 4).tissue, watched, job)
        else:
            alone = with_epochs(preset("cells.coupling=none"), 4)
            train_cells(alone.cells, watched, [pair.cells() for pair in pairs], job)
        outside = {index for index, own in enumerate(folds) if own != fold}
        assert set(watched.seen) == outside
        assert {pairs[index].patient for index in outside}.isdisjoint(
            pairs[index].patient for index in job.validation
        )


def test_folds_that_a_run_does_not_have_are_refused(pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    run = run_of(pairs, tmp_path / "run")
    run.prepare(None, 0)
    with pytest.raises(TrainingError, match=r"folds\.json: has 3 folds, not the 2 of --folds"):
        run.prepare(2, 0)
    other = run_of(pairs, tmp_path / "other", folds=2)
    with pytest.raises(TrainingError, match=r"not the folds of --folds-file"):
        run.prepare(None, 0, other.folds_path)
    run.prepare(None, 0, run.folds_path)
    with pytest.raises(UsageError, match="cannot be split into 0 folds"):
        run_of(pairs, tmp_path / "none", folds=0)


def test_a_run_keeps_the_weights_of_its_pairs_and_trains_by_them(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    weights = PairWeights("by hand", {pairs[1].id: 0.0})
    run = run_of(pairs, tmp_path)
    weighted = replace(run, folder=tmp_path / "weighted", pair_weights=weights)
    weighted.prepare(3, 0)
    assert (
        json.loads((tmp_path / "weighted" / "config.json").read_text())["pair_weights"] == weights.to_json()
    )
    fold = next(fold for fold in range(3) if fold != weighted.fold_of()[1])
    assert set(run.job("tissue", fold).training) - set(weighted.job("tissue", fold).training) == {1}
    with pytest.raises(
        TrainingError, match=r"of a run with another pair_weights\.rule, pair_weights\.weights\.\w+;"
    ):
        replace(weighted, pair_weights=None).prepare(3, 0)
    with pytest.raises(InputError, match="there is no pair 999"):
        replace(weighted, pair_weights=PairWeights("by hand", {"999": 0.0})).prepare(3, 0)


def with_epochs(preset: Preset, epochs: int) -> Preset:
    return with_settings(preset, [f"tissue.optimizer.epochs={epochs}", f"cells.optimizer.epochs={epochs}"])


@pytest.mark.parametrize("settings", [("tissue.optimizer.batch=1",), ("tissue.optimizer.accumulation=2",)])
def test_one_patch_at_a_time_is_too_few(
    pairs: list[AnnotatedPair], tmp_path: Path, settings: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match=r"tissue.optimizer: .*normalization needs at least two"):
        run_of(pairs, tmp_path / "run", *settings)
    assert not (tmp_path / "run").exists()


def test_trained_network_is_loaded_not_trained_again(pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    run = run_of(pairs, tmp_path)
    first = run.train_tissue(0)
    written = (tmp_path / "tissue/fold0/network.safetensors").stat().st_mtime_ns
    again = run.train_tissue(0)
    assert (tmp_path / "tissue/fold0/network.safetensors").stat().st_mtime_ns == written
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert torch.equal(value, run.tissue_network(0).state_dict()[name])


def test_weights_of_another_configuration_are_refused(pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    put_tissue_networks(run_of(pairs, tmp_path))
    wider = replace(run_of(pairs, tmp_path), preset=preset("tissue.network.decoder_channels=32"))
    with pytest.raises(TrainingError, match=r"network\.safetensors: from another configuration"):
        wider.tissue_network(0)


def test_folder_of_another_configuration_is_refused(pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    run_of(pairs, tmp_path)
    run_of(pairs, tmp_path)  # the same again is welcome
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(TrainingError, match=r"config\.json: of a run with another cells\.target\.sigma_um;"):
        run_of(pairs, tmp_path, "cells.target.sigma_um=5")
    with pytest.raises(TrainingError, match="with another seed;"):
        EnsembleRun(pairs, tmp_path, preset(), LoopConfig(seed=1, bfloat16=False), None).prepare(3, 0)
    with pytest.raises(TrainingError, match=r"another cells\.\w+\.\w+, [\w.]+, [\w.]+ and \d+ more;"):
        EnsembleRun(pairs, tmp_path, PRESETS["paper"], LoopConfig(bfloat16=False), None).prepare(3, 0)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_goes_on_though_presets_have_got_a_new_value(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    run = run_of(pairs, tmp_path)
    path = tmp_path / "config.json"
    document = json.loads(path.read_text())
    for task in ("tissue", "cells"):
        del document[task]["augmentation"]["stain"]
    path.write_text(json.dumps(document))
    run.prepare(3, 0)
    with pytest.raises(TrainingError, match=r"another cells\.augmentation\.stain;"):
        run_of(pairs, tmp_path, "cells.augmentation.stain=0.1")
    del document["tissue"]["augmentation"]["crop"], document["cells"]
    path.write_text(json.dumps(document))
    with pytest.raises(TrainingError, match="of a run with another"):
        run.prepare(3, 0)


def test_folds_are_made_once_or_taken_from_a_file(pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    first = run_of(pairs, tmp_path / "first")
    made = read_folds(first.folds_path)
    first.prepare(None, 5)
    assert read_folds(first.folds_path) == made
    given = tmp_path / "given.json"
    entries = {pair.id: {"fold": int(pair.patient[-1]) % 2, "patient": pair.patient} for pair in pairs}
    given.write_text(json.dumps({"pairs": entries}))
    second = EnsembleRun(pairs, tmp_path / "second", preset(), LoopConfig(), None)
    with pytest.raises(InputError, match=r"other\.json: is missing; make it with `softctm folds`"):
        second.prepare(5, 0, tmp_path / "other.json")
    assert not second.folder.exists()
    for _ in range(2):
        second.prepare(5, 0, given)
    assert second.fold_of() == [int(patient[-1]) % 2 for patient in PATIENTS]


def test_a_run_starts_from_the_networks_of_another_fold_by_fold(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    first = run_of(pairs, tmp_path / "first")
    put_tissue_networks(first)
    second = EnsembleRun(
        pairs, tmp_path / "second", preset("tissue.optimizer.learning_rate=0"), LoopConfig(), None,
        start=Start(first.folder),
    )  # fmt: skip
    second.prepare(2, 7)  # its own choice of folds does not count
    assert second.fold_of() == first.fold_of()
    assert second.folds_path.read_bytes() == first.folds_path.read_bytes()  # the seed too
    config = json.loads((second.folder / "config.json").read_text())
    assert config["start"] == json.loads((first.folder / "config.json").read_text())
    for fold in range(3):
        expected = dict(first.tissue_network(fold).named_parameters())
        trained = dict(second.train_tissue(fold).named_parameters())
        assert all(torch.equal(value, expected[name]) for name, value in trained.items())


def test_a_start_with_other_pairs_leaves_its_patients_in_their_folds(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    few = run_of(pairs[:4], tmp_path / "few")
    more = replace(few, pairs=pairs, folder=tmp_path / "more", start=Start(few.folder))
    part = replace(few, pairs=pairs[1:4], folder=tmp_path / "part", start=Start(few.folder))
    for _ in range(2):  # once more: the run goes on
        more.prepare(2, 5)
        assert more.fold_of()[:4] == few.fold_of()
        assert more.fold_of()[4] in range(3)
        part.prepare(2, 5)
        assert part.fold_of() == few.fold_of()[1:]


def test_patients_that_networks_were_trained_on_rounds_ago_stay_in_their_folds(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    first = run_of(pairs[:3], tmp_path / "first", folds=2)
    folds = dict(zip(PATIENTS, first.fold_of(), strict=False))
    second = replace(first, pairs=pairs[3:], folder=tmp_path / "second", start=Start(first.folder))
    second.prepare(2, 0)
    assert set(second.fold_of()) == {0, 1}
    third = replace(first, pairs=pairs, folder=tmp_path / "third", start=Start(second.folder))
    third.prepare(2, 0)
    assert third.fold_of() == [*first.fold_of(), *second.fold_of()]
    assert read_folds(third.folds_path).of_patient == {**folds, **read_folds(second.folds_path).of_patient}
    alone = replace(first, pairs=[pairs[0], pairs[2]], folder=tmp_path / "alone", start=Start(first.folder))
    with pytest.raises(UsageError, match=r"all 2 pairs are in one fold"):
        alone.prepare(2, 0)
    assert not alone.folder.exists()


def test_a_start_brings_its_own_folds(
    pairs: list[AnnotatedPair], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_of(pairs, tmp_path / "first").folder
    words = ["train", "all", "--data", "data", "--run", "run", "--start", str(first)]
    for option, value in (("--folds", "5"), ("--folds-file", "file")):
        assert main([*words, option, value]) == UsageError.exit_code
        assert f"{option}: has no effect beside --start" in capsys.readouterr().err
    for name in ("compact-finetune", "compact-finetune-scales"):
        assert main([*words[:6], "--preset", name]) == UsageError.exit_code
        assert f"--preset {name}: fine-tunes trained networks" in capsys.readouterr().err


def test_a_start_that_would_mix_folds_or_is_not_there_is_refused(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    first = run_of(pairs, tmp_path / "first")
    other = replace(run_of(pairs, tmp_path / "other"), start=Start(first.folder))
    (other.folder / "config.json").unlink()
    document = json.loads(other.folds_path.read_text())
    for entry in document["pairs"].values():
        entry["fold"] = (entry["fold"] + 1) % 3
    other.folds_path.write_text(json.dumps(document))
    assert set(read_folds(other.folds_path).of_pair.values()) == {0, 1, 2}
    with pytest.raises(TrainingError, match=r"not the pairs, or not the folds, that .*first"):
        other.prepare(3, 0)
    second = replace(first, folder=tmp_path / "second", start=Start(first.folder))
    second.prepare(3, 0)
    with pytest.raises(TrainingError, match=r"fold1.network.safetensors: is not there; --start takes a fin"):
        second.train_tissue(1)
    with pytest.raises(InputError, match=r"nowhere: is not there; --start takes a run's folder"):
        Start(tmp_path / "nowhere")
    first.folds_path.unlink()
    with pytest.raises(TrainingError, match=r"first.folds.json: is not there, so that nobody knows"):
        Start(first.folder)


def test_a_start_takes_networks_to_other_scales(pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    first = run_of(pairs, tmp_path / "first")
    put_tissue_networks(first)
    closer = preset("tissue.network.scales=1.5", "tissue.optimizer.epochs=0")
    second = replace(first, folder=tmp_path / "second", preset=closer, start=Start(first.folder))
    second.prepare(3, 0)
    network = second.train_tissue(1)
    assert network.config.scales == (1.5,)
    expected = first.tissue_network(1).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("task", ["tissue", "cells"])
def test_magnified_crops_are_cut_from_the_patches_own_pixels(
    task: Task, pairs: list[AnnotatedPair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(pairs, tmp_path, f"{task}.augmentation.magnified=2")
    if task == "cells":
        put_tissue_networks(run)
    cut = set()

    def noting(image: Tensor, target: Tensor, config: Any, crop: int, rng: Any, reduction: int) -> object:
        cut.add((image.shape[-1], target.shape[-1], crop, reduction))
        return augment(image, target, config, crop, rng, reduction)

    monkeypatch.setattr("softctm.training.crops.augment", noting)
    watched = replace(run, loop=LoopConfig(bfloat16=False, validate_epochs=1))
    getattr(watched, f"train_{task}")(1)
    downsampling = run.preset.of(task).network.downsampling
    assert cut == {(1024, 1024, 896 // downsampling // 16 * 16, downsampling)}
    assert "validation_mean_f1" in (tmp_path / task / "fold1" / "metrics.csv").read_text()


def test_curves_of_magnified_training_score_what_the_detector_would_see(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    settings = ["tissue.augmentation.magnified=2", "tissue.network.scales=1.5,2"]
    run = replace(run_of(pairs, tmp_path, *settings), loop=LoopConfig(bfloat16=False, validate_epochs=1))
    network = run.train_tissue(1)
    held_out = [pair for pair, fold in zip(pairs, run.fold_of(), strict=True) if fold == 1]
    maps = predict_tissue(network, [pair.tissue_patch() for pair in held_out])
    losses = []
    for shown, pair in zip(maps, held_out, strict=True):
        labels = pair.tissue_labels()
        is_right = np.stack([labels == TISSUE_BACKGROUND, labels == TISSUE_CANCER])
        losses.append(-np.log(shown[is_right]).mean(dtype=np.float64))
    (row,) = csv.DictReader((tmp_path / "tissue/fold1/metrics.csv").read_text().splitlines())
    assert float(row["validation_loss"]) == pytest.approx(np.mean(losses), rel=1e-6)


def test_networks_that_a_start_does_not_fit_begin_with_an_encoder(
    pairs: list[AnnotatedPair], tmp_path: Path
) -> None:
    first = run_of(pairs, tmp_path / "first")
    put_tissue_networks(first)
    deeper = preset("tissue.network.decoder_channels=32", "tissue.optimizer.learning_rate=0")
    plain = EnsembleRun(pairs, tmp_path / "plain", deeper, LoopConfig(bfloat16=False), None)
    without = replace(plain, folder=tmp_path / "without", start=Start(first.folder))
    with pytest.raises(TrainingError, match=r"first: its tissue networks are of another shape"):
        without.prepare(3, 0)
    fitting = replace(without, preset=preset(), encoder_weights="encoder.safetensors")
    with pytest.raises(TrainingError, match=r"--encoder-weights: has no effect beside --start .*first"):
        fitting.prepare(3, 0)
    assert not (tmp_path / "without").exists()

    encoder = tmp_path / "encoder.safetensors"
    body = DeepLab(deeper.tissue.network).body.encoder.state_dict()
    save_file({name: value.contiguous() for name, value in body.items()}, encoder)
    mixed = replace(without, encoder_weights=str(encoder))
    mixed.prepare(3, 0)
    trained = mixed.train_tissue(0).body.encoder
    assert all(torch.equal(value, body[name]) for name, value in trained.named_parameters())


def test_pair_without_a_fold_is_named(pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    run = run_of(pairs[:4], tmp_path)
    with pytest.raises(InputError, match=r"folds\.json: has no fold for pair 005"):
        replace(run, pairs=pairs).fold_of()


def test_a_run_that_is_a_file_is_named(
    pairs: list[AnnotatedPair], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UsageError, match=r"--run .*run: is a file; name a folder"):
        run_of(pairs, tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"no weights", None], ids=["empty", "foreign", "truncated"])
def test_damaged_weights_are_named_in_one_line(
    pairs: list[AnnotatedPair], tmp_path: Path, content: bytes | None
) -> None:
    run = run_of(pairs, tmp_path)
    put_tissue_networks(run)
    path = tmp_path / "tissue/fold0/network.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    for load in (run.tissue_network, run.train_tissue):
        with pytest.raises(TrainingError, match=r"network\.safetensors: cannot be read .*delete") as raised:
            load(0)
        assert "\n" not in str(raised.value)


def test_a_corrected_label_is_trained_on_or_spoken_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = load_release(write_release(tmp_path / "release", ROWS, PATIENTS))
    run = run_of(pairs, tmp_path / "run", "cells.coupling=none")
    run.train_cells(0)
    caplog.clear()
    run.train_cells(0)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    pairs[3].cell_csv.write_text("700,800,2\n")
    run.train_cells(0)
    assert "cell-targets" in caplog.text
    assert "network.safetensors: was trained on data that have changed since" in caplog.text
    caplog.clear()
    (tmp_path / "run/cells/fold0/network.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: from a run with another data"):
        run.train_cells(0)
    run.train_cells(1)  # of the new data
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_what_there_is_to_learn_is_counted_and_nothing_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "softctm")
    rows = [[(50, 60, TC)], [], [], [(10, 10, TC)]]
    pairs = load_release(write_release(tmp_path / "release", rows, PATIENTS[1:]))
    run = run_of(pairs, tmp_path / "run", "cells.coupling=none", folds=2)
    given = {"001": 0, "002": 1, "003": 1, "004": 0}
    entries = {pair.id: {"fold": given[pair.id], "patient": pair.patient} for pair in pairs}
    run.folds_path.write_text(json.dumps({"pairs": entries}))
    with pytest.raises(
        TrainingError, match=r"cells network of fold 0: there is nothing to learn: its 2 pairs"
    ):
        run.train_cells(0)
    assert not (tmp_path / "run/cells").exists()
    run.train_cells(1)
    assert "2 pairs of 2 patients; cells: background cell 0, tumor cell 2" in caplog.text
    assert "no cells of the class background cell among its 2 pairs" in caplog.text
    for pair in pairs:
        Image.fromarray(np.full((1024, 1024), 255, np.uint8)).save(pair.tissue_png)
    with pytest.raises(TrainingError, match="no annotated pixels of known tissue"):
        run.train_tissue(1)


@pytest.mark.parametrize("command", ["train", "export"])
def test_without_pytorch_one_line_says_what_to_install(tmp_path: Path, command: str) -> None:
    words = {
        "train": ["train", "all", "--data", str(tmp_path), "--run", str(tmp_path / "run")],
        "export": ["export", "--data", str(tmp_path), "--output", str(tmp_path / "out"), "--name", "x"],
    }[command]
    code = (
        "import sys; sys.modules['torch'] = None\nfrom softctm.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert result.returncode == MissingPackageError.exit_code
    (line,) = result.stderr.splitlines()
    assert line == "error: torch is not installed; install it: pip install -e '.[train]' in SoftCTM's folder"


def test_folds_need_no_pytorch(pairs: list[AnnotatedPair], tmp_path: Path) -> None:
    release = pairs[0].cell_image.parents[3]
    code = (
        "import sys; sys.modules['torch'] = None\nfrom softctm.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    words = ["folds", str(tmp_path / "folds.json"), "--data", str(release), "--folds", "2"]
    subprocess.run([sys.executable, "-c", code, *words], check=True)
    subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['torch'] = None\nimport softctm.jobs.validation"],
        check=True,
    )
