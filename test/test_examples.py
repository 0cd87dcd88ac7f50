"""The real pairs of examples/: never trained on, complete, and what `make demo` shows of them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softctm.datasets.ocelot import load_release

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples/ocelot"


def test_no_network_of_the_default_model_has_seen_these_patients() -> None:
    shown = {pair.patient for pair in load_release(EXAMPLE)}
    assert shown == {"TCGA-AX-A1CK", "TCGA-D7-6519"}
    files = list((ROOT / "model_weights").rglob("folds.json"))
    assert files
    for folds in files:
        trained = json.loads(folds.read_text())["pairs"]
        assert len(trained) == 339
        assert not shown & {pair["patient"] for pair in trained.values()}
        assert not {pair.id for pair in load_release(EXAMPLE)} & trained.keys()


def test_the_release_is_complete_and_says_whose_it_is() -> None:
    for pair in load_release(EXAMPLE):
        assert len(pair.cells()) > 50
        assert {1, 2} <= set(np.unique(pair.tissue_labels()))
        for image in (pair.cell_image, pair.tissue_image):
            assert Image.open(image).size == (1024, 1024)
    text = (EXAMPLE / "README.md").read_text()
    for said in ("CC BY-NC 4.0", "Ryu", "The Cancer Genome Atlas", "unchanged"):
        assert said in text


def test_the_demo_leaves_a_picture_for_each_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the small networks, which find something on real tissue too, though nothing of use."""
    specification = importlib.util.spec_from_file_location("demo", ROOT / "scripts/demo.py")
    assert specification is not None
    assert specification.loader is not None
    demo = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(demo)
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "demo-output")
    monkeypatch.setattr(demo, "MODEL", ROOT / "test/hand_set")
    shutil.copytree(EXAMPLE, tmp_path / "example")
    monkeypatch.setattr(demo, "EXAMPLE", tmp_path / "example")
    for _ in range(2):  # a second run replaces what the first one left
        assert demo.main() == 0
        assert sorted(os.listdir(tmp_path / "demo-output")) == [
            "170.png",
            "349.png",
            "cell_classification.json",
            "run.json",
        ]
    assert "mF1" in capsys.readouterr().out
