"""Six real pairs in their own layout, end to end with the default model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from softctm.cli import main
from softctm.evaluation import load_predictions, load_truth
from softctm.evaluation.scores import count_pairs, score

pytestmark = pytest.mark.slow


def test_six_real_pairs_are_found_scored_and_reported(six_pairs: Path, tmp_path: Path) -> None:
    release = ["--input", str(six_pairs), "--subset", "train"]
    assert main(["predict", *release, "--output", str(tmp_path), "--views", "1", "--device", "cpu"]) == 0
    predictions, truth = tmp_path / "cell_classification.json", load_truth(six_pairs, "train")
    counts = count_pairs(load_predictions(predictions, len(truth)), truth.points)
    # The model has seen these pairs: a score below its out-of-fold one would mean a broken chain.
    assert score(counts).mean_f1 > 0.5
    assert (counts[..., 0].sum(axis=1) > 0).all()
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["failures"] == []
    page = tmp_path / "report.html"
    scored = ["--truth", str(six_pairs), "--subset", "train", "--resamples", "100"]
    assert main(["report", str(page), "--predictions", str(predictions), *scored]) == 0
    assert "softctm-compact" in page.read_text()
