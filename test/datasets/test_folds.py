"""Folds: no patient in two, everything in one, even shares."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_cases import PairInMemory, pair_in_memory

from softctm.cli import main
from softctm.datasets.ocelot import load_release
from softctm.datasets.patient_folds import make_folds, read_folds, write_folds
from softctm.errors import InputError, UsageError

ORGANS = ("kidney", "bladder", "stomach")
patients = st.lists(
    st.lists(
        st.tuples(st.sampled_from(ORGANS), st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=4
    ),
    min_size=5,
    max_size=20,
)


def release(by_patient: Sequence[Sequence[tuple[str, int, int]]]) -> list[PairInMemory]:
    """Pairs (organ, background cells, tumor cells) of each patient."""
    rows = [(f"P{i}", *row) for i, rows in enumerate(by_patient) for row in rows]
    return [pair_in_memory(number, *row) for number, row in enumerate(rows)]


@settings(max_examples=60, deadline=None)
@given(by_patient=patients, count=st.integers(2, 5), seed=st.integers(0, 5))
def test_no_patient_is_in_two_folds_and_every_pair_in_one(
    by_patient: list[list[tuple[str, int, int]]], count: int, seed: int
) -> None:
    pairs = release(by_patient)
    folds = make_folds(pairs, count, seed)
    assert sorted(folds) == [pair.id for pair in pairs]
    assert set(folds.values()) == set(range(count))  # none is empty
    for patient in {pair.patient for pair in pairs}:
        assert len({folds[pair.id] for pair in pairs if pair.patient == patient}) == 1


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=5, max_size=30), count=st.integers(2, 5))
def test_sizes_differ_by_no_more_than_the_largest_patient(sizes: list[int], count: int) -> None:
    # All pairs alike, so that nothing else has to be balanced.
    pairs = release([[("kidney", 3, 2)] * size for size in sizes])
    in_fold = Counter(make_folds(pairs, count).values())
    assert max(in_fold.values()) - min(in_fold.values()) <= max(sizes)


def test_each_organ_is_split_evenly() -> None:
    pairs = release([[(ORGANS[i % 3], 10, 10)] for i in range(30)])
    folds = make_folds(pairs, 5)
    shares = Counter((folds[pair.id], pair.organ) for pair in pairs)
    assert set(shares.values()) == {2}
    assert len(shares) == 15


def test_seed_changes_only_the_order_of_equal_patients() -> None:
    pairs = release([[("kidney", 5, 5)] for _ in range(12)])
    assert make_folds(pairs, 4, 1) == make_folds(pairs, 4, 1)
    assert make_folds(pairs, 4, 1) != make_folds(pairs, 4, 2)


@pytest.mark.parametrize("count", [1, 4])
def test_impossible_numbers_of_folds_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"3 patients cannot be split into {count} folds"):
        make_folds(release([[("kidney", 1, 1)] * 4] * 3), count)


def test_file_says_who_is_where_and_reads_back(tmp_path: Path) -> None:
    pairs = release([[("kidney", 5, 5)] * 2, [("bladder", 1, 0)], [("stomach", 0, 3)]])
    folds = make_folds(pairs, 2)
    write_folds(tmp_path / "new" / "folds.json", folds, pairs, 7)
    assert read_folds(tmp_path / "new" / "folds.json").of_pair == folds
    document = json.loads((tmp_path / "new" / "folds.json").read_text())
    assert document["seed"] == 7
    assert document["folds"] == 2
    assert document["pairs"]["002"] == {"fold": folds["002"], "patient": "P1", "organ": "bladder"}


def test_file_in_which_a_patient_leaks_is_refused(tmp_path: Path) -> None:
    pairs = release([[("kidney", 5, 5)] * 2, [("bladder", 1, 0)]])
    path = tmp_path / "folds.json"
    write_folds(path, {"000": 0, "001": 1, "002": 0}, pairs, 0)
    with pytest.raises(InputError, match=r"folds\.json: patient P0 is in more than one fold"):
        read_folds(path)


@pytest.mark.parametrize("text", ["", "[]", '{"pairs": {"001": {"patient": "P"}}}', '{"pairs": [1]}', "{}"])
def test_what_is_no_folds_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(InputError, match=r"folds\.json: (not a folds file|is not valid JSON)"):
        read_folds(tmp_path / "folds.json")


def test_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make it with `softctm folds`"):
        read_folds(tmp_path / "folds.json")


def test_real_release_is_split_evenly(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "folds.json"
    assert main(["folds", str(path), "--data", str(shared / "ocelot")]) == 0
    folds, pairs = read_folds(path).of_pair, load_release(shared / "ocelot")
    fold_of = np.array([folds[pair.id] for pair in pairs])
    sizes = np.bincount(fold_of)
    assert len(sizes) == 5
    assert sizes.max() - sizes.min() <= 5
    labels = [pair.cells().label for pair in pairs]
    for label in (1, 2):
        cells = np.bincount(fold_of, weights=[np.sum(found == label) for found in labels])
        assert cells.max() / cells.mean() < 1.1
        assert cells.min() / cells.mean() > 0.9
    # Organs: more even than any of a hundred random assignments of the patients.
    organs, organ_of = np.unique([pair.organ for pair in pairs], return_inverse=True)
    patients, patient_of = np.unique([pair.patient for pair in pairs], return_inverse=True)

    def unevenness(folds: np.ndarray) -> float:
        shares = np.histogram2d(organ_of, folds, (len(organs), 5))[0] / np.bincount(organ_of)[:, None]
        return float(shares.std(1).mean())

    random = np.random.default_rng(0)
    by_chance = [unevenness(random.integers(0, 5, len(patients))[patient_of]) for _ in range(100)]
    assert unevenness(fold_of) < min(by_chance)
    assert all(len(set(fold_of[patient_of == patient])) == 1 for patient in range(len(patients)))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    assert printed[0].startswith(f"fold 0: {sizes[0]} pairs, ")


def test_folds_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    write_folds(path, {"000": 0, "001": 1}, release([[("kidney", 5, 5)], [("bladder", 1, 0)]]), 0)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert read_folds(path).count == 2


def test_the_command_replaces_only_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", str(tmp_path / "data"), "--layout", "ocelot", "--pairs", "3"]) == 0
    path = tmp_path / "folds.json"
    words = ["folds", str(path), "--data", str(tmp_path / "data"), "--folds", "2"]
    assert main(words) == 0
    assert main(words) == 0
    path.write_text('{"mine": 1}')
    assert main(words) == 6
    assert "folds.json is there already and `softctm folds` did not make it" in capsys.readouterr().err
    assert path.read_text() == '{"mine": 1}'
    assert main([*words, "--overwrite"]) == 0
    assert read_folds(path).count == 2
    assert main([words[0], str(path / "f.json"), *words[2:]]) == 6
    assert "folds.json" in capsys.readouterr().err.splitlines()[-1]
