"""Validation: counts that are kept follow their sources, and what is left out is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_cases import BC, TC, pair_in_memory, write_release

from softctm.cli import main
from softctm.datasets.ocelot import load_release
from softctm.errors import InputError, ModelError, UsageError
from softctm.evaluation.out_of_fold import RULES
from softctm.jobs import validation as validate
from softctm.jobs.validation import Validation, pairs_of_folds, prepare_validation
from softctm.points import CellPoints
from softctm.postprocessing.peaks import Peaks
from softctm.postprocessing.watershed import Watershed

HAND_SET = Path(__file__).parents[1] / "hand_set"
ROWS = [[(100, 200, BC)], [(300, 600, TC), (900, 901, TC)], [(5, 5, TC)], [(7, 7, BC)]]
PATIENTS = ["TCGA-AA-0001", "TCGA-AA-0001", "TCGA-AA-0002", "TCGA-AA-0003"]


class Model(SimpleNamespace):
    """A model of one network a fold, which are told apart by their hashes."""

    postprocessing = Peaks(3, 3)

    def held_out(self, fold: int) -> Model:
        return Model(hashes={"cell": f"{self.version}{fold}"}, precision="float32")


@pytest.fixture
def validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Validation:
    """Folds 0 (pairs 001 and 002) and 1; its detector sees everything as background."""
    flat = SimpleNamespace(
        cell_probability=np.zeros((3, 1024, 1024), np.float32),
        tissue_probability=np.stack([np.ones((1024, 1024)), np.zeros((1024, 1024))]),
    )
    predicted: list[str] = []

    class Detector:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def predict(self, pair: Any, maps: bool) -> Any:
            predicted.append(pair.name)
            return flat

    def missed(_: Any, true: CellPoints) -> np.ndarray:
        counts = np.zeros((len(RULES), 2, 3), np.int64)
        counts[:, :, 2] = [np.sum(true.label == BC), np.sum(true.label == TC)]
        return counts

    monkeypatch.setattr(validate, "detector_of", Detector)
    monkeypatch.setattr(validate, "count_by_rule", missed)
    monkeypatch.setattr(validate, "predicted", predicted, raising=False)
    pairs = load_release(write_release(tmp_path / "release", ROWS, PATIENTS))
    folds = {pair.id: {"fold": i // 2, "patient": pair.patient} for i, pair in enumerate(pairs)}
    (tmp_path / "folds.json").write_text(json.dumps({"pairs": folds}))
    model: Any = Model(version="a", folder=tmp_path, manifest=SimpleNamespace(folds="folds.json"), hashes={})
    return prepare_validation(model, pairs, tmp_path / "release", 1, "cpu", tmp_path / "work")


def predicted() -> list[str]:
    """The pairs that were predicted since the last call."""
    names: list[str] = list(validate.predicted)  # type: ignore[attr-defined]
    validate.predicted.clear()  # type: ignore[attr-defined]
    return names


def test_a_model_without_tissue_map_counts_no_tissue(
    validation: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = np.zeros((3, 1024, 1024), np.float32)
    prediction = SimpleNamespace(cell_probability=cells, tissue_probability=None)
    detector = SimpleNamespace(predict=lambda pair, maps: prediction)
    monkeypatch.setattr(validate, "detector_of", lambda *_: detector)
    counts = validation.counts(0)
    assert not counts[:, -1].any()
    assert counts[:, :-1].any()


def test_counts_are_those_of_the_folds_pairs(validation: Validation) -> None:
    counts = validation.counts(0)
    assert counts.shape == (2, len(RULES) + 1, 2, 3)
    assert counts[0, 0].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert counts[1, 0].tolist() == [[0, 0, 0], [0, 0, 2]]
    # All is called background; the left half is cancer, the last row unknown.
    half = 1023 * 512
    assert counts[:, -1].tolist() == [[[half, half, 0], [0, 0, half]]] * 2
    assert validation.outcome().counts.sum(0)[:, 2].tolist() == [2, 3]


def test_counts_are_kept(validation: Validation) -> None:
    first = validation.counts(0)
    assert predicted() == ["001", "002"]
    np.testing.assert_array_equal(validation.counts(0), first)
    assert predicted() == []
    validation.counts(1)
    assert predicted() == ["003", "004"]
    replace(validation, work=None).counts(0)
    assert predicted() == ["001", "002"]


def new_cells(validation: Validation) -> Validation:
    validation.pairs[0].cell_csv.write_text("1,2,2\n3,4,2\n5,6,2\n")
    return validation


def new_tissue(validation: Validation) -> Validation:
    Image.fromarray(np.ones((1024, 1024), np.uint8)).save(validation.pairs[1].tissue_png)
    return validation


def new_image(validation: Validation) -> Validation:
    Image.new("RGB", (1024, 1024)).save(validation.pairs[0].cell_image)
    return validation


def new_metadata(validation: Validation) -> Validation:
    entry = {**validation.pairs[0].metadata, "mpp_x": 0.25}
    return replace(validation, pairs=[replace(validation.pairs[0], metadata=entry), *validation.pairs[1:]])


def new_networks(validation: Validation) -> Validation:
    validation.model.version = "b"  # type: ignore[attr-defined]
    return validation


@pytest.mark.parametrize("change", [new_cells, new_tissue, new_image, new_metadata, new_networks])
def test_counts_are_made_anew_when_what_they_were_made_from_changes(
    validation: Validation, change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = validation.counts(0)
    predicted()
    changed = change(validation)
    after = changed.counts(0)
    assert predicted() == ["001", "002"]
    assert any("is made anew" in message and "changed since" in message for message in caplog.messages)
    if change is new_cells:
        assert after[0, 0].tolist() == [[0, 0, 0], [0, 0, 3]]
        assert before[0, 0].tolist() == [[0, 0, 1], [0, 0, 0]]


def test_damaged_counts_are_made_anew(validation: Validation) -> None:
    expected = validation.counts(0)
    predicted()
    (path,) = validation.work.glob("*.npy")  # type: ignore[union-attr]
    path.write_bytes(path.read_bytes()[:50])
    np.testing.assert_array_equal(validation.counts(0), expected)
    assert predicted() == ["001", "002"]


def test_pairs_of_other_patients_than_the_folds_say_are_refused(validation: Validation) -> None:
    strangers = [replace(pair, patient="TCGA-ZZ-9999") for pair in validation.pairs]
    with pytest.raises(InputError, match=r"pair 001 is of patient 'TCGA-ZZ-9999' now"):
        prepare_validation(validation.model, strangers, Path("data"))


def test_a_model_without_folds_and_a_single_fold_are_refused(validation: Validation) -> None:
    with pytest.raises(UsageError, match="all 2 pairs are of one fold"):
        replace(validation, pairs=validation.pairs[:2]).outcome()
    nameless: Any = Model(folder=Path("model"), manifest=SimpleNamespace(folds=None))
    with pytest.raises(ModelError, match=r"model: model\.json names no folds"):
        prepare_validation(nameless, validation.pairs, Path("data"))


def test_what_is_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    pairs = [pair_in_memory(number, "P") for number in range(5)]
    assert pairs_of_folds(pairs, {pair.id: 0 for pair in pairs}, Path("data")) == pairs
    assert not caplog.messages
    assert pairs_of_folds(pairs, {pairs[3].id: 0, "gone": 1}, Path("data")) == [pairs[3]]
    assert caplog.messages == [
        "4 of 5 pairs are in none of the model's folds and left out",
        "1 of the 2 pairs of the model's folds are missing",
    ]
    with pytest.raises(UsageError, match=r"data: none of its 5 pairs is in the model's folds"):
        pairs_of_folds(pairs, {"gone": 0}, Path("data"))


def test_only_rules_for_peaks_are_validated(validation: Validation) -> None:
    model: Any = Model(
        version="a", folder=Path("m"), manifest=validation.model.manifest, postprocessing=Watershed(80, 7)
    )
    model.folder = validation.model.folder
    with pytest.raises(UsageError, match="finds cells by watershed, and validate chooses among rules"):
        prepare_validation(model, validation.pairs, Path("release"))


def test_a_pair_that_lacks_a_file_is_told_before_any_is_predicted(validation: Validation) -> None:
    validation.pairs[3].tissue_png.unlink()
    model: Any = validation.model
    with pytest.raises(InputError, match=r"004\.png: is missing; pair 004 cannot be scored without it"):
        prepare_validation(model, validation.pairs, Path("release"))
    assert predicted() == []


def test_what_cannot_be_written_is_told_before_hours_of_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release = write_release(tmp_path / "release", ROWS, PATIENTS)
    (tmp_path / "file").write_text("")

    def fail() -> None:
        raise AssertionError

    replaced = SimpleNamespace(outcome=fail, fold_of=[0, 1])
    monkeypatch.setattr(validate, "prepare_validation", lambda *_, **__: replaced)
    options = ["validate", "--data", str(release), "--weights", str(HAND_SET)]
    assert main([*options, "--json", str(tmp_path / "file" / "scores.json")]) == 6
    assert "cannot be written to" in capsys.readouterr().err
    (tmp_path / "thesis.json").write_text('{"mine": 1}')
    assert main([*options, "--json", str(tmp_path / "thesis.json")]) == 6
    assert "thesis.json is there already" in capsys.readouterr().err
    assert main([*options, "--json", str(tmp_path)]) == 6
    assert f"{tmp_path} is a folder where a file would go" in capsys.readouterr().err
    assert main([*options, "--fold", "0", "--json", "x.json"]) == 2
    assert "--fold: only counts; give --json and --update in the last run" in capsys.readouterr().err


def test_the_table_is_printed_where_no_file_is_asked_for(
    validation: Validation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(validate, "prepare_validation", lambda *_, **__: validation)
    before = sorted(tmp_path.iterdir())
    assert main(["validate", "--data", str(tmp_path / "release"), "--weights", str(HAND_SET)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("all"))
    assert row.split()[1] == "4"  # pairs
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "work"] == before
