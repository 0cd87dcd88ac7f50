"""The experiments on training: every one is a recipe that exists, and is compared patient by patient."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.experiments import EXPERIMENTS, RECIPE
from benchmarks.recipes import folder_of, row, runnable, scores
from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.out_of_fold import RULES
from softctm.networks.network_table import ARCHITECTURES
from softctm.training.config import with_settings
from softctm.training.presets import PRESETS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_changes_the_compact_recipe_into_another_one(name: str) -> None:
    changed = with_settings(PRESETS["compact"], EXPERIMENTS[name].settings)
    assert changed.cells.coupling in ARCHITECTURES[changed.cells.network.architecture].couplings
    assert (changed == PRESETS["compact"]) == (name in (RECIPE, "pretrained", "guided masks"))


def test_experiments_run_where_what_they_need_is_given() -> None:
    nothing, both = (SimpleNamespace(pretrained=given, segmenter=given) for given in (None, "given"))
    assert runnable(both) == list(EXPERIMENTS)
    only = runnable(SimpleNamespace(pretrained=None, segmenter="points"))
    assert set(only) - set(runnable(nothing)) == {"guided masks", "hard, Dice, guided masks"}


def test_what_was_counted_with_one_network_is_not_taken_for_anothers(tmp_path: Path) -> None:
    def given(content: bytes, segmenter: str) -> Any:
        path = tmp_path / "cells" / "network.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return SimpleNamespace(
            run=tmp_path, epochs=2, encoder_weights="imagenet", pretrained=tmp_path, segmenter=segmenter
        )

    first, other = given(b"1", "points"), given(b"2", "classical")
    for name, experiment in EXPERIMENTS.items():
        given(b"1", "points")
        before = folder_of(name, first)
        given(b"2", "classical")
        assert (folder_of(name, other) == before) == (not experiment.guided and not experiment.pretrained)


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
    figures, by_patient = scores({0: counted(5, [3, 3]), 1: counted(7, [3])}, run)
    assert figures["mean_f1"] == 0
    np.testing.assert_array_equal(by_patient[:, :, 2], 1)
    figures, by_patient = scores({0: counted(5, [3, 1]), 1: counted(5, [2])}, run)
    # 6 TP, 3 FN a class: F1 = 12 / 15. Patients a, b, c have 3, 2 and 1.
    assert figures["mean_f1"] == pytest.approx(0.8)
    np.testing.assert_array_equal(by_patient[:, 0, 0], [3, 2, 1])


def test_pairs_of_a_patient_stay_together() -> None:
    _, by_patient = scores({0: counted(5, [3, 1]), 1: counted(5, [2])}, run_of(["a", "b", "a"], [0, 1, 0]))
    np.testing.assert_array_equal(by_patient[:, 0, 0], [4, 2])


def test_an_experiment_that_is_better_on_every_patient_is_surely_better() -> None:
    worse = np.tile([[2, 1, 1], [2, 1, 1]], (6, 1, 1)).astype(float)
    better = np.tile([[3, 0, 0], [3, 0, 0]], (6, 1, 1)).astype(float)
    bootstrap = Bootstrap(6, resamples=200)
    assert row(better, worse, bootstrap) == "+0.3333 [+0.3333, +0.3333]"
    assert row(worse, worse, bootstrap) == "+0.0000 [+0.0000, +0.0000]"
