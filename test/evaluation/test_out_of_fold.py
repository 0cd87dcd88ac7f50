"""Out-of-fold scores: no fold's rule is chosen on that fold, and the counts are those of the detector."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from evaluation_cases import cells, imperfect, random_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from softctm.evaluation.out_of_fold import AUTHORS_RULE, RULES, count_by_rule, out_of_fold
from softctm.evaluation.scores import pair_counts
from softctm.jobs.validation import table
from softctm.points import CellPoints
from softctm.postprocessing.methods import find_cells
from softctm.postprocessing.peaks import Peaks

FOLDS = [0, 0, 1, 1, 2, 2]
ORGANS = ["kidney", "bladder"] * 3
PATIENTS = ["a", "a", "b", "c", "d", "e"]


def random_counts(seed: int) -> np.ndarray:
    """(6 pairs, rules, 2, 3)."""
    return np.random.default_rng(seed).integers(0, 30, (6, len(RULES), 2, 3))


def tissue_counts() -> np.ndarray:
    return np.random.default_rng(1).integers(1, 100, (6, 2, 3))


def drawn_map(seed: int) -> tuple[np.ndarray, CellPoints]:
    """A probability map with a bump of random height at most of the true cells, and at some others."""
    random = np.random.default_rng(seed)
    true = random_cells(random, 60)
    shown = imperfect(random, true)
    planes = np.zeros((3, 1024, 1024), np.float32)
    planes[shown.label, shown.y, shown.x] = random.uniform(0.2, 1, len(shown))
    planes[1:] = ndimage.gaussian_filter(planes[1:], (0, 5, 5)) * (2 * np.pi * 25)
    planes[1:] /= np.maximum(1, planes[1:].sum(0))
    planes[0] = 1 - planes[1:].sum(0)
    return planes, true


def test_rules_are_the_authors_and_a_grid_without_doubles() -> None:
    assert RULES[0] == AUTHORS_RULE == Peaks(3.0, 3, None)
    assert len(set(RULES)) == len(RULES)
    assert Peaks(4.5, 7, 0.3) in RULES
    assert Peaks(4.5, 7) in RULES


def test_counts_are_those_of_finding_and_counting_under_each_rule() -> None:
    probability, true = drawn_map(0)
    counts = count_by_rule(probability, true)
    assert counts.shape == (len(RULES), 2, 3)
    chosen = [0, *np.random.default_rng(5).choice(np.arange(1, len(RULES)), 12, replace=False).tolist()]
    for index in chosen:
        np.testing.assert_array_equal(counts[index], pair_counts(find_cells(probability, RULES[index]), true))
    assert len(np.unique(counts.reshape(len(RULES), 6), axis=0)) > 10  # the rules do differ here


def test_rule_by_hand() -> None:
    # Rule 4 is perfect on folds 0 and 1, rule 9 on fold 2; all others find nothing.
    counts = np.zeros((6, len(RULES), 2, 3), np.int64)
    counts[..., 2] = 10
    for rule, pairs in ((4, [0, 1, 2, 3]), (9, [4, 5])):
        for pair in pairs:
            counts[pair, rule, :, 0], counts[pair, rule, :, 2] = 10, 0
    outcome = out_of_fold(counts, tissue_counts(), FOLDS, ORGANS, PATIENTS)
    # Seen from folds 0 and 2, and 1 and 2, both rules are perfect on two of four pairs: the first stays.
    assert outcome.rules == {0: RULES[4], 1: RULES[4], 2: RULES[4]}
    assert outcome.rule == RULES[4]
    # Fold 2 is thus scored under a rule that finds nothing in it: 4 of 6 pairs are right.
    figures = outcome.to_json()
    assert figures["all"]["mean_f1"][0] == pytest.approx(2 * 80 / (2 * 80 + 40), abs=1e-4)
    assert figures["folds"][2]["mean_f1"][0] == 0
    assert figures["folds"][0]["mean_f1"] == [1, None, None]  # of one patient
    assert figures["mean_f1_over_folds"] == [round(2 / 3, 4), round(float(np.std([1, 1, 0], ddof=1)), 4)]
    assert figures["mean_f1_with_the_authors_rule"] == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), fold=st.integers(0, 2))
def test_no_folds_rule_depends_on_that_folds_counts(seed: int, fold: int) -> None:
    counts = random_counts(seed)
    others = counts.copy()
    others[np.array(FOLDS) == fold] = random_counts(seed + 1)[:2] * 1000
    before = out_of_fold(counts, tissue_counts(), FOLDS, ORGANS, PATIENTS)
    after = out_of_fold(others, tissue_counts(), FOLDS, ORGANS, PATIENTS)
    assert before.rules[fold] == after.rules[fold]
    chosen = RULES.index(after.rules[fold])
    np.testing.assert_array_equal(
        after.counts[np.array(FOLDS) == fold], others[np.array(FOLDS) == fold, chosen]
    )


def test_a_folds_counts_do_decide_the_others_rules() -> None:
    counts = random_counts(0)
    rewarded = 20
    counts[4:, rewarded] = [[100_000, 0, 0]] * 2
    rules = out_of_fold(counts, tissue_counts(), FOLDS, ORGANS, PATIENTS).rules
    assert rules[0] == rules[1] == RULES[rewarded]
    assert rules[2] != RULES[rewarded]


def test_figures_are_pooled_over_pairs_by_fold_and_organ() -> None:
    outcome = out_of_fold(random_counts(3), tissue_counts(), FOLDS, ORGANS, PATIENTS)
    figures: dict[str, Any] = json.loads(json.dumps(outcome.to_json()))  # it must fit into model.json

    def f1s(counts: np.ndarray) -> list[float]:
        tp, fp, fn = counts.reshape(-1, 2, 3).sum(0).T
        return list(2 * tp / (2 * tp + fp + fn))

    groups = [("all", figures["all"], np.arange(6))]
    groups += [(f, figures["folds"][str(f)], np.flatnonzero(np.array(FOLDS) == f)) for f in range(3)]
    groups += [
        (o, figures["organs"][o], np.flatnonzero(np.array(ORGANS) == o)) for o in ("kidney", "bladder")
    ]
    for _, entry, members in groups:
        bc, tc = f1s(outcome.counts[members])
        assert entry["pairs"] == len(members)
        assert entry["f1_bc"][0] == pytest.approx(bc, abs=1e-4)
        assert entry["f1_tc"][0] == pytest.approx(tc, abs=1e-4)
        assert entry["mean_f1"][0] == pytest.approx((bc + tc) / 2, abs=1e-4)
        value, low, high = entry["mean_f1"]
        several = len({PATIENTS[member] for member in members}) > 1
        assert low <= value <= high if several else low is high is None
        assert entry["tissue_mean_f1"] == pytest.approx(
            np.mean(f1s(outcome.tissue_counts[members])), abs=1e-4
        )
    authors = np.mean(f1s(random_counts(3)[:, 0]))
    assert figures["mean_f1_with_the_authors_rule"] == pytest.approx(authors, abs=1e-4)
    best = max(range(len(RULES)), key=lambda rule: np.mean(f1s(random_counts(3)[:, rule])))
    assert figures["rule"] == {
        "sigma_px": RULES[best].sigma_px,
        "distance_px": RULES[best].distance_px,
        "threshold": RULES[best].threshold,
    }


def test_table_shows_every_group_and_the_deviation_over_folds() -> None:
    figures = {
        "views": 8,
        **out_of_fold(random_counts(3), tissue_counts(), FOLDS, ORGANS, PATIENTS).to_json(),
    }
    text = table(figures)
    for name in ("all", "fold 0", "fold 1", "fold 2", "bladder", "kidney"):
        assert sum(line.startswith(name) for line in text.splitlines()) == 1
    assert f"{figures['all']['mean_f1'][0]:.4f} [" in text
    assert f"{figures['mean_f1_over_folds'][0]:.4f} ± {figures['mean_f1_over_folds'][1]:.4f}" in text
    assert "views: 8" in text


def test_map_without_cells_counts_only_misses() -> None:
    blank = np.zeros((3, 1024, 1024), np.float32)
    blank[0] = 1
    counts = count_by_rule(blank, cells((5, 5, 1), (500, 500, 2), (700, 20, 2)))
    assert (counts == [[0, 0, 1], [0, 0, 2]]).all()


def test_of_a_model_without_tissue_map_nothing_is_said_about_tissue() -> None:
    outcome = out_of_fold(random_counts(3), np.zeros_like(tissue_counts()), FOLDS, ORGANS, PATIENTS)
    figures = outcome.to_json()
    assert figures["all"]["tissue_mean_f1"] is figures["tissue_mean_f1_over_folds"] is None
    lines = table({**figures, "views": 1}).splitlines()
    assert lines[1].endswith("none")
    assert not any("tissue" in line for line in lines[1:])


def test_an_organ_without_a_class_has_no_score_of_it() -> None:
    counts = random_counts(3)
    kidney = [index for index, organ in enumerate(ORGANS) if organ == "kidney"]
    counts[kidney, :, 1] = 0  # neither annotated nor found
    outcome = out_of_fold(counts, tissue_counts(), FOLDS, ORGANS, PATIENTS)
    figures = outcome.to_json()
    assert figures["organs"]["kidney"]["f1_tc"] == [None, None, None]
    assert figures["organs"]["kidney"]["mean_f1"] == [None, None, None]
    assert figures["organs"]["kidney"]["f1_bc"][0] > 0
    assert "none" in table({"views": 8, **figures})


def test_intervals_keep_the_pairs_of_a_patient_together() -> None:
    counts = random_counts(3)
    apart = out_of_fold(counts, tissue_counts(), FOLDS, ORGANS, list("abcdef")).estimates()["f1_bc"]
    alike = np.repeat(counts[::2], 2, axis=0)
    folds = [0, 0, 1, 1, 2, 2]
    found = out_of_fold(alike, tissue_counts(), folds, ORGANS, list("aabbcc")).estimates()["f1_bc"]
    single = out_of_fold(alike, tissue_counts(), folds, ORGANS, list("abcdef")).estimates()["f1_bc"]
    assert found.high - found.low > 1.2 * (single.high - single.low)
    assert apart.low <= apart.value <= apart.high


def test_tissue_that_does_not_occur_in_a_fold_is_undefined_there_alone() -> None:
    tissue = np.full((6, 2, 3), 10)
    tissue[4:, 1] = 0  # fold 2 has no cancer area, annotated or predicted
    figures = out_of_fold(random_counts(4), tissue, FOLDS, ORGANS, PATIENTS).to_json()
    f1 = round(2 * 10 / (2 * 10 + 10 + 10), 4)
    assert [entry["tissue_mean_f1"] for entry in figures["folds"].values()] == [f1, f1, None]
    assert figures["tissue_mean_f1_over_folds"] == [f1, 0]
    assert figures["all"]["tissue_mean_f1"] == f1
