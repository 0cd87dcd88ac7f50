from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import BC, TC, cells, document, imperfect, random_cells, write_json, write_release
from PIL import Image

from softctm.cli import main
from softctm.commands.truth_options import short_names
from softctm.evaluation import evaluate, load_truth
from softctm.evaluation.scores import count_pairs, score
from softctm.report.tables import EVALUATION_FILES

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def case(tmp_path):
    """A release of five pairs, the last without cells, and a middling detector's predictions."""
    random = np.random.default_rng(0)
    true = [*(random_cells(random, 80) for _ in range(4)), cells()]
    predicted = [imperfect(random, points) for points in true]
    release = write_release(tmp_path / "release", true, ["kidney", "liver", "kidney", "liver", "liver"])
    return release, write_json(tmp_path / "predictions.json", document(predicted)), true, predicted


def run(*words):
    return main(["evaluate", *map(str, words)])


def test_known_answer_on_stdout(shared, capsys):
    folder = shared / "reference/evaluation"
    assert run("--predictions", folder / "cell_classification.json", "--truth", folder / "cell_gt.json") == 0
    lines = capsys.readouterr().out.splitlines()
    printed = {line.split()[0]: line.split()[1] for line in lines if "/" in line.split()[0] or "mF1" in line}
    expected = json.loads((folder / "scores.json").read_text())
    assert printed == {name: f"{value:.4f}" for name, value in expected.items()}


def test_everything_is_written_as_json_and_csv(case, tmp_path, capsys):
    release, predictions, true, predicted = case
    out = tmp_path / "out"
    tissue = tmp_path / "tissue"
    tissue.mkdir()
    for i in range(5):
        Image.fromarray(np.full((1024, 1024), 2, np.uint8)).save(tissue / f"image_{i}.png")
    arguments = ("--truth", release, "--output", out, "--tissue", tissue, "--resamples", 200)
    assert run("--predictions", predictions, *arguments) == 0
    assert {path.name for path in out.iterdir()} == set(EVALUATION_FILES)
    found = json.loads((out / "evaluation.json").read_text())
    scores = score(count_pairs(predicted, true))
    assert {name: found[name] for name in scores.challenge} == scores.challenge
    for name, value in scores.unrounded.items():
        assert found[name]["value"] == pytest.approx(value)
        assert found[name]["low"] <= value <= found[name]["high"]
    assert found["counts"] == scores.counts.tolist()
    assert [group["name"] for group in found["organs"]] == ["kidney", "liver"]
    assert [group["name"] for group in found["regions"]] == ["cancer area", "background"]
    assert [part["name"] for part in found["tissue"]] == ["all", "kidney", "liver"]
    assert found["pairs"][4]["true_purity"] is None
    assert found["predictions"]["pairs_without_cells"] == [4]
    tables = {path.stem: list(csv.DictReader(path.open())) for path in out.glob("*.csv")}
    assert set(tables) == {"figures", "pairs", "cells", "curves", "reliability", "confusion", "distances"}
    assert sum(int(row["tp_tc"]) for row in tables["pairs"]) == scores.counts[1, 0]
    outcomes = [(row["outcome"], row["class"]) for row in tables["cells"]]
    for i, short in enumerate(("BC", "TC")):
        for j, outcome in enumerate(("TP", "FP", "FN")):
            assert outcomes.count((outcome, short)) == scores.counts[i, j]
    sections = {row["section"] for row in tables["figures"]}
    assert sections == {
        "challenge", "score", "organ", "region", "confusion", "best threshold", "calibration", "distance",
        "purity", "tissue",
    }  # fmt: skip
    with_interval = [row for row in tables["figures"] if row["section"] != "challenge" and row["value"]]
    assert all(row["low"] and row["high"] for row in with_interval)
    assert "written to" in capsys.readouterr().out


def test_a_pair_that_the_file_does_not_mention_has_no_predictions(tmp_path, capsys):
    true = [cells((10, 10, BC), (90, 10, TC)), cells((10, 10, BC), (90, 10, TC))]
    release = write_release(tmp_path / "release", true)
    predictions = write_json(tmp_path / "p.json", document(true[:1]))
    assert run("--predictions", predictions, "--truth", release, "--resamples", 0) == 0
    out = capsys.readouterr().out
    assert "Pre/BC  1.0000\nRec/BC  0.5000\nF1/BC   0.6667\n" in out


def test_no_cells_anywhere(tmp_path, capsys):
    truth = write_json(tmp_path / "cell_gt.json", document([], num_images=2))
    out = tmp_path / "out"
    words = ("--truth", truth, "--output", out, "--resamples", 50)
    assert run("--predictions", truth, *words) == 0
    assert (out / "cells.csv").read_text().startswith("index,name,outcome,class,x,y,score,")
    assert "mF1     0.0000" in capsys.readouterr().out


def test_several_files_are_ranked(case, tmp_path, capsys):
    release, predictions, true, _ = case
    perfect = write_json(tmp_path / "perfect.json", document(true))
    out = tmp_path / "out"
    words = ("--truth", release, "--output", out, "--resamples", 300)
    assert run("--predictions", predictions, perfect, *words) == 0
    comparison = json.loads((out / "comparison.json").read_text())
    assert [(r["name"], r["rank"]) for r in comparison["ranking"]] == [("predictions", 2), ("perfect", 1)]
    assert comparison["pairwise"][0]["probability"] == 0.0
    assert json.loads((out / "perfect/evaluation.json").read_text())["mF1"] == 1.0
    assert (out / "predictions/figures.csv").is_file()
    assert len(list(csv.DictReader((out / "ranking.csv").open()))) == 2
    assert "predictions outranks perfect with probability 0.0000" in capsys.readouterr().out


def test_fail_under(case, tmp_path, capsys):
    release, predictions, true, predicted = case
    mean_f1 = score(count_pairs(predicted, true)).challenge["mF1"]
    words = ("--predictions", predictions, "--truth", release, "--resamples", 0)
    assert run(*words, "--fail-under", f"{mean_f1:.5f}") == 0
    out = tmp_path / "out"
    assert run(*words, "--output", out, "--fail-under", f"{mean_f1 + 1e-5:.5f}") == 8
    assert capsys.readouterr().err.startswith("error: mF1 is below the demanded")
    assert (out / "evaluation.json").is_file()


def test_every_fault_of_a_file_is_printed(case, tmp_path, capsys):
    release = case[0]
    bad = write_json(
        tmp_path / "bad.json",
        {
            "type": "Multiple points",
            "version": {"major": 1, "minor": 0},
            "points": [{"name": f"image_{i}", "point": [0.5, 1, 1], "probability": 1.0} for i in range(6)],
        },
    )
    assert run("--predictions", bad, "--truth", release) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"error: {bad}: 7 faults")
    assert sum("x is 0.5" in line for line in lines[:-1]) == 6
    assert sum("there are 5 pairs" in line for line in lines[:-1]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resamples", "-1"], "--resamples"),
        (["--resamples", "1"], "--resamples must be 0, or 2 or more, not 1"),
        (["--patient-key", "patient_ID"], "--patient-key patient_ID: tells no patient in "),
        (["--fail-under", "65"], "--fail-under"),
        (["--tissue", "a", "b"], "--tissue"),
        (["--ids", "nowhere.txt"], "nowhere.txt"),
        (["--tissue", "."], "no tissue map"),
    ],
)
def test_options_that_make_no_sense_are_refused(case, capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert run("--predictions", case[1], "--truth", case[0], *words) in (2, 3)
    assert message in capsys.readouterr().err


def test_ids_evaluate_a_part(case, tmp_path, capsys):
    release, _, true, predicted = case
    part = write_json(tmp_path / "part.json", document([predicted[3], predicted[1]]))
    ids = tmp_path / "ids.txt"
    ids.write_text("004\n\n 002 \n")
    assert run("--predictions", part, "--truth", release, "--ids", ids, "--resamples", 0) == 0
    expected = score(count_pairs([predicted[3], predicted[1]], [true[3], true[1]])).challenge["mF1"]
    assert f"mF1     {expected:.5f}\n".replace("0\n", "\n") in capsys.readouterr().out


def test_result_in_python_is_what_the_files_say(case):
    release, _, true, predicted = case
    result = evaluate(predicted, load_truth(release), resamples=50)
    assert (result.pair_counts == count_pairs(predicted, true)).all()
    for pair in result.pairs:
        is_tp = pair.match.is_tp
        partner = pair.match.true_cell[is_tp]
        assert (pair.predicted.label[is_tp] == pair.truth.points.label[partner]).all()
        assert (pair.match.prediction[partner] == is_tp.nonzero()[0]).all()
        assert is_tp.sum() == pair.counts[:, 0].sum()
        assert (~pair.match.found).sum() == pair.counts[:, 2].sum()


def test_as_many_predictions_as_pairs_are_needed(case):
    with pytest.raises(ValueError, match="4 predictions for 5 pairs"):
        evaluate(case[3][:4], load_truth(case[0]))


def test_names_are_as_short_as_keeps_them_apart():
    assert short_names([Path("/a/x/one.json"), Path("/a/y/two.json")]) == ["one", "two"]
    assert short_names([Path("/a/x/one.json"), Path("/a/y/one.json")]) == ["x/one", "y/one"]


def test_works_without_plotting_libraries_and_torch(case):
    release, predictions, _, _ = case
    code = (
        "import sys\n"
        "for name in ('matplotlib', 'jinja2', 'torch', 'sklearn', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "from softctm.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["evaluate", "--predictions", str(predictions), "--truth", str(release), "--resamples", "20"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "mF1" in done.stdout


def test_137_pairs_with_everything_in_seconds(tmp_path):
    random = np.random.default_rng(0)
    true = [random_cells(random, 183) for _ in range(137)]
    truth = write_json(tmp_path / "cell_gt.json", document(true, num_images=137))
    predictions = write_json(tmp_path / "p.json", document([imperfect(random, points) for points in true]))
    start = time.process_time()
    assert run("--predictions", predictions, "--truth", truth, "--resamples", 0) == 0
    assert time.process_time() - start < 2
    start = time.process_time()
    assert run("--predictions", predictions, "--truth", truth) == 0
    assert time.process_time() - start < 15


def test_tables_of_another_program_are_not_replaced(case, tmp_path, capsys):
    release, predictions, _, _ = case
    out = tmp_path / "out"
    out.mkdir()
    (out / "pairs.csv").write_text("mine")
    words = ("--predictions", predictions, "--truth", release, "--output", out, "--resamples", 0)
    assert run(*words) == 6
    assert "pairs.csv is there already and `softctm evaluate` did not make it" in capsys.readouterr().err
    assert (out / "pairs.csv").read_text() == "mine"
    assert run(*words, "--overwrite") == 0
    assert (out / "pairs.csv").read_text() != "mine"
    (out / "notes.csv").write_text("mine")  # none of the names that are written
    (out / "raw").mkdir()
    (out / "raw" / "pairs.csv").write_text("mine")
    assert run(*words) == 0
    assert (out / "notes.csv").read_text() == (out / "raw" / "pairs.csv").read_text() == "mine"


def test_results_of_an_earlier_call_do_not_stay_beside_new_ones(case, tmp_path):
    release, predictions, true, _ = case
    perfect = write_json(tmp_path / "perfect.json", document(true))
    words = ("--truth", release, "--output", tmp_path / "out", "--resamples", 20)
    assert run("--predictions", predictions, perfect, *words) == 0
    assert run("--predictions", perfect, *words) == 0
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["mF1"] == 1
    assert not any((tmp_path / "out" / name).exists() for name in ("comparison.json", "ranking.csv"))
    assert run("--predictions", predictions, perfect, *words) == 0
    assert (tmp_path / "out/comparison.json").is_file()
    assert not any((tmp_path / "out" / name).exists() for name in ("evaluation.json", "figures.csv"))


def test_one_patient_has_neither_intervals_nor_a_ranking(case, tmp_path, capsys):
    release, predictions, true, _ = case
    perfect = write_json(tmp_path / "perfect.json", document(true))
    words = ("--truth", release, "--patient-key", "^(TCGA)", "--output", tmp_path / "out", "--resamples", 20)
    assert run("--predictions", predictions, perfect, *words) == 0
    assert "no ranking: all pairs are of one patient" in capsys.readouterr().out
    found = json.loads((tmp_path / "out/predictions/evaluation.json").read_text())
    assert found["mean_f1"]["value"] > 0
    assert found["mean_f1"]["low"] is found["mean_f1"]["high"] is None
    assert not (tmp_path / "out/comparison.json").exists()


def test_doubts_about_patients_are_told(case, tmp_path, capsys):
    release, predictions, _, _ = case
    metadata = json.loads((release / "metadata.json").read_text())
    entries = metadata["sample_pairs"]
    for name, entry in entries.items():
        entry["slide_name"] = f"HOSPITAL-2023-{name}"
    entries["001"]["case"] = "A"
    write_json(release / "metadata.json", metadata)
    words = ("--predictions", predictions, "--truth", release, "--resamples", 20)
    assert run(*words) == 0
    told = capsys.readouterr()
    assert "5 pairs of 1 patient," in told.out
    assert "HOSPITAL-2023-001: not a TCGA barcode" in told.err
    assert run(*words, "--patient-key", "case") == 0
    assert "the patient of 4 of 5 pairs is unknown (002, for instance)" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_as_windows_writes_them(case, tmp_path, capsys, encoding):
    """A byte order mark in any of the files changes nothing."""
    release, predictions, _, _ = case
    ids = tmp_path / "ids.txt"
    ids.write_text("001\n002\n003\n004\n005\n")
    words = ("--predictions", predictions, "--truth", release, "--ids", ids, "--resamples", 0)
    assert run(*words) == 0
    expected = capsys.readouterr().out
    for path in (predictions, ids, release / "metadata.json", *release.rglob("*.csv")):
        path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert run(*words) == 0
    assert capsys.readouterr().out == expected
