"""Which patient a pair is of, and what is said where that is not plain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_cases import BC, TC, write_release

from softctm.cli import main
from softctm.datasets.ocelot import load_release
from softctm.datasets.patient_folds import folds_of, make_folds, read_folds
from softctm.datasets.patients import PatientKey
from softctm.errors import InputError, UsageError

ENTRY = {"slide_name": "P12_block3_HE", "patient_id": 7, "nothing": None}


@pytest.mark.parametrize(
    ("key", "patient"),
    [
        ("", "P12_block3_H"),
        ("patient_id", "7"),
        ("nothing", ""),
        ("absent", ""),
        (r"^(P\d+)_", "P12"),
        (r"block(\d)", "3"),
        (r"^(Q\d+)_", ""),
    ],
)
def test_key_is_a_field_or_a_pattern(key: str, patient: str) -> None:
    assert PatientKey(key)(ENTRY) == patient


@pytest.mark.parametrize(
    ("key", "message"), [("(P", "not a regular expression"), (r"^P\d+_", "0 groups"), ("(a)(b)", "2 groups")]
)
def test_other_keys_are_refused(key: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PatientKey(key)


def renamed(folder: Path, names: list[Any]) -> Path:
    """A release whose slides have these names."""
    write_release(folder, [[(50, 60, BC), (500, 300, TC)] for _ in names])
    path = folder / "metadata.json"
    document = json.loads(path.read_text())
    for entry, name in zip(document["sample_pairs"].values(), names, strict=True):
        entry["slide_name"] = name
    path.write_text(json.dumps(document))
    return folder


def test_a_slide_without_a_name_has_no_patient(tmp_path: Path) -> None:
    release = renamed(tmp_path, ["TCGA-AA-0001-1", None, "TCGA-AA-0002-1"])
    with pytest.raises(InputError, match=r"pair 002: .* do not tell its patient; .* --patient-key"):
        make_folds(load_release(release), 2)


def test_names_of_another_form_are_taken_for_one_patient_only_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release = renamed(tmp_path, [f"hospital-north-{patient}" for patient in (1, 1, 2, 3)])
    with pytest.raises(
        UsageError, match=r"1 patient cannot .*such as hospital-nor; .* first 12 char.*--patient-key"
    ):
        make_folds(load_release(release), 2)
    assert "hospital-north-1: not a TCGA barcode" in caplog.text
    assert "1 patient of 4 pairs" in caplog.text
    caplog.clear()
    pairs = load_release(release, "train", PatientKey(r"-(\d+)$"))
    folds = make_folds(pairs, 3)
    assert folds["001"] == folds["002"]
    assert len(set(folds.values())) == 3
    assert not caplog.messages


def test_folds_of_a_command_follow_the_key_and_are_not_mixed_with_others(tmp_path: Path) -> None:
    release = renamed(tmp_path / "release", [f"hospital-north-{patient}" for patient in (1, 1, 2, 3)])
    path = tmp_path / "folds.json"
    words = ["folds", str(path), "--data", str(release), "--folds", "3"]
    assert main(words) == UsageError.exit_code
    assert main([*words, r"--patient-key=-(\d+)$"]) == 0
    assert set(read_folds(path).of_patient) == {"1", "2", "3"}
    with pytest.raises(InputError, match=r"pair 001 is of patient 'hospital-nor' now"):
        folds_of(load_release(release), path)
    assert len(folds_of(load_release(release, "train", PatientKey(r"-(\d+)$")), path)) == 4


def test_folds_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    path.write_bytes(b'\xef\xbb\xbf{"pairs": {"001": {"fold": 0, "patient": "P"}}}')
    assert read_folds(path).of_pair == {"001": 0}
