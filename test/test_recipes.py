"""The experiments on training: every one is a recipe that exists, and is compared patient by patient."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.recipes.__main__ import trials_of
from benchmarks.recipes.comparison import FIGURES, counts_by_patient, difference
from benchmarks.recipes.experiments import EXPERIMENTS, RECIPE
from benchmarks.recipes.trials import Setup, Trial, one_patient_in
from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.out_of_fold import RULES
from softctm.networks.network_table import ARCHITECTURES
from softctm.training.config import Task, with_settings
from softctm.training.presets import PRESETS

ALL = [(task, name) for task, experiments in EXPERIMENTS.items() for name in experiments]


def setup(folder: Path, task: Task, **changed: Any) -> Setup:
    given = Setup(folder, folder, "imagenet", None, None, task, 2)
    return replace(given, **changed)


@pytest.mark.parametrize(("task", "name"), ALL)
def test_every_experiment_changes_the_compact_recipe_into_another_one(task: Task, name: str) -> None:
    changed = with_settings(PRESETS["compact"], EXPERIMENTS[task][name].settings)
    own = changed.of(task)
    assert own.coupling in ARCHITECTURES[own.network.architecture].couplings
    same = {RECIPE, "pretrained", "guided masks", "pretrained, guided masks", "weighted pairs"}
    same |= {"half of the patients", "a quarter of the patients"}
    assert (changed == PRESETS["compact"]) == (name in same)


def test_experiments_run_where_what_they_need_is_given(tmp_path: Path) -> None:
    def names(pretrained: list[Path], segmenter: str | None, weights: Path | None) -> list[str]:
        given = setup(tmp_path, "cells", segmenter=segmenter, pair_weights=weights)
        return [trial.experiment_name for trial in trials_of(given, [], pretrained)]

    assert sorted(names([tmp_path], "points", tmp_path)) == sorted(EXPERIMENTS["cells"])
    least = set(names([], None, None))
    assert set(names([], "points", None)) - least == {"guided masks", "hard, Dice, guided masks"}
    assert set(names([], None, tmp_path)) - least == {"weighted pairs"}


def test_an_experiment_that_cannot_be_run_is_refused_by_name(tmp_path: Path) -> None:
    nothing = setup(tmp_path, "tissue")
    with pytest.raises(ValueError, match="--only nonsense: no experiment on tissue; they are recipe, U-Net"):
        trials_of(nothing, ["nonsense"], [])
    with pytest.raises(ValueError, match="--only pretrained: needs --pretrained"):
        trials_of(nothing, ["pretrained"], [])
    with pytest.raises(ValueError, match="--only weighted pairs: needs --pair-weights"):
        trials_of(nothing, ["weighted pairs"], [])


def pretrained_on(folder: Path, content: bytes, *datasets: str) -> Path:
    (folder / "tissue").mkdir(parents=True)
    (folder / "tissue" / "network.safetensors").write_bytes(content)
    network = asdict(PRESETS["compact"].tissue)
    config = {"pretraining": "tissue", "data": dict.fromkeys(datasets, 1), "tissue": network}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_fewer_patients_are_an_even_part_of_every_organ_and_fold() -> None:
    patients = [(organ, fold, f"{organ}{fold}{i}") for organ in "ab" for fold in (0, 1, 2) for i in range(8)]
    # Two pairs of each patient, in no order of theirs.
    of_pair = patients[::-1] + patients
    pairs: Any = [
        SimpleNamespace(id=str(i), organ=organ, patient=name) for i, (organ, _, name) in enumerate(of_pair)
    ]
    folds = [fold for _, fold, _ in of_pair]
    kept = {}
    for number in (2, 4):
        weights = one_patient_in(number, pairs, folds)
        drawn = [pair for pair, weight in zip(pairs, weights.of(pairs), strict=True) if weight]
        names = [pair.patient for pair in drawn]
        assert all(names.count(name) == 2 for name in names)
        kept[number] = set(names)
        assert {name[:2] for name in names} == {f"{organ}{fold}" for organ, fold, _ in patients}
        assert len(kept[number]) == len(patients) // number
    assert kept[4] < kept[2]


def test_an_experiment_is_run_from_every_pretrained_network(tmp_path: Path) -> None:
    starts = [
        pretrained_on(tmp_path / "a", b"1", "glas"),
        pretrained_on(tmp_path / "b", b"2", "monuseg", "glas"),
    ]
    given = setup(tmp_path, "tissue")
    trials = trials_of(given, ["pretrained"], starts)
    assert [trial.name for trial in trials] == [
        RECIPE,
        "pretrained on glas",
        "pretrained on glas + monuseg",
    ]
    assert len({trial.folder(given) for trial in trials}) == 3


def test_what_was_counted_with_one_network_is_not_taken_for_anothers(tmp_path: Path) -> None:
    encoder = tmp_path / "encoder.safetensors"

    def folder(trial: Trial, weights: bytes, segmenter: str) -> Path:
        encoder.write_bytes(weights)
        given = setup(tmp_path, "cells", encoder_weights=str(encoder), segmenter=segmenter)
        return trial.folder(given)

    def weighted_folder(content: str) -> Path:
        (tmp_path / "weights.json").write_text(content)
        given = setup(tmp_path, "cells", pair_weights=tmp_path / "weights.json")
        return Trial("weighted pairs").folder(given)

    recipe, guided = Trial(RECIPE), Trial("guided masks")
    named = [recipe.folder(setup(tmp_path, "cells", encoder_weights=name)) for name in ("imagenet", "ssl")]
    assert named[0] != named[1]
    assert weighted_folder("1") != weighted_folder("2")
    assert folder(recipe, b"1", "points") == folder(recipe, b"1", "classical")
    assert folder(recipe, b"1", "points") != folder(recipe, b"2", "points")
    assert folder(guided, b"1", "points") != folder(guided, b"1", "classical")


def run_of(patients: list[str], folds: list[int]) -> Any:
    pairs = [SimpleNamespace(patient=patient, organ="kidney") for patient in patients]
    return SimpleNamespace(pairs=pairs, fold_of=lambda: folds)


def counted(good: int, hits: list[int]) -> np.ndarray:
    """(pairs, rules, 2, 3): only the rule `good` finds cells, so many of each class, and misses one."""
    counts = np.zeros((len(hits), len(RULES), 2, 3), np.int64)
    counts[..., 2] = 1
    counts[:, good, :, 0] = np.array(hits)[:, None]
    return counts


def test_the_rule_of_a_fold_is_chosen_on_the_others() -> None:
    run = run_of(["a", "b", "c"], [0, 1, 0])
    # Rule 5 would suit fold 0 and rule 7 fold 1; chosen crosswise neither finds anything there.
    by_patient = counts_by_patient("cells", {0: counted(5, [3, 3]), 1: counted(7, [3])}, run)
    assert FIGURES["cells"](by_patient.sum(0))["mean_f1"] == 0
    np.testing.assert_array_equal(by_patient[:, :, 2], 1)
    by_patient = counts_by_patient("cells", {0: counted(5, [3, 1]), 1: counted(5, [2])}, run)
    # 6 TP, 3 FN a class: F1 = 12 / 15. Patients a, b, c have 3, 2 and 1.
    assert FIGURES["cells"](by_patient.sum(0))["mean_f1"] == pytest.approx(0.8)
    np.testing.assert_array_equal(by_patient[:, 0, 0], [3, 2, 1])


def test_pairs_of_a_patient_stay_together() -> None:
    run = run_of(["a", "b", "a"], [0, 1, 0])
    by_patient = counts_by_patient("cells", {0: counted(5, [3, 1]), 1: counted(5, [2])}, run)
    np.testing.assert_array_equal(by_patient[:, 0, 0], [4, 2])


def test_tissue_has_no_rule_to_choose() -> None:
    run = run_of(["a", "b", "a"], [0, 1, 0])
    by_patient = counts_by_patient(
        "tissue", {0: np.ones((2, 1, 2, 3), int), 1: np.ones((1, 1, 2, 3), int)}, run
    )
    np.testing.assert_array_equal(by_patient[:, 0, 0], [2, 1])


@pytest.mark.parametrize("task", EXPERIMENTS)
def test_an_experiment_that_is_better_on_every_patient_is_surely_better(task: Task) -> None:
    worse = np.tile([[2, 1, 1], [2, 1, 1]], (6, 1, 1)).astype(float)
    better = np.tile([[3, 0, 0], [3, 0, 0]], (6, 1, 1)).astype(float)
    bootstrap = Bootstrap(6, resamples=200)
    assert str(difference(task, better, worse, bootstrap)) == "+0.3333 [+0.3333, +0.3333]"
    assert str(difference(task, worse, worse, bootstrap)) == "+0.0000 [+0.0000, +0.0000]"
