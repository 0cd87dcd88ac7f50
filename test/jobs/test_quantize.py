"""An 8-bit model folder does everything that the model does, and its score out of fold stays one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from inputs import write_pairs
from tiny_networks import network, write_folder, write_manifest

from benchmarks.agreement import Agreement
from softctm.cli import main
from softctm.inference.detector import Detector
from softctm.inference.load import load_detector
from softctm.jobs import model_quantization as quantized_model
from softctm.model import load_model
from softctm.readers import open_pairs

ROOT = Path(__file__).parents[2]
PAIRS = 3


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("input"), PAIRS)


def write_model(folder: Path) -> Path:
    """Two folds; the tissue network of fold 1 is for validation only. Pairs 000 and 001 are of fold 0."""
    write_folder(folder, folds=2, gain=0.1)
    (folder / "validation").mkdir()
    further = folder / "validation/tissue_fold1.onnx"
    further.write_bytes(network(7, 3, 2, gain=0.1))
    folds = {f"00{i}": {"fold": i // 2, "patient": f"p{i}", "organ": "kidney"} for i in range(PAIRS)}
    (folder / "validation/folds.json").write_text(json.dumps({"pairs": folds}))
    digest = hashlib.sha256(further.read_bytes()).hexdigest()
    document = write_manifest(
        folder,
        licenses=["CC-BY-NC-4.0"],
        training={"data": "synthetic"},
        scores={"float32": {"mean_f1": 1}},
        postprocessing={"method": "peaks", "sigma_px": 2.0, "distance_px": 4, "threshold": 0.3},
        folds="validation/folds.json",
    )
    entry = {"fold": 1, "files": {"float32": {"path": "validation/tissue_fold1.onnx", "sha256": digest}}}
    document["stages"]["tissue"]["validation"] = [entry]
    (folder / "model.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "weights")


@pytest.fixture(scope="module")
def both(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with int8 networks."""
    folder = write_model(tmp_path_factory.mktemp("int8") / "weights")
    assert quantize(folder, pairs) == 0
    return folder


def quantize(weights: Path, pairs: Path, *more: str) -> int:
    return main(["quantize", "--weights", str(weights), "--calibrate", str(pairs), *more])


def test_every_network_has_an_int8_version_verified_by_its_hash(both: Path) -> None:
    model = load_model(both).in_precision("int8")
    networks = (*model.networks, *model.tissue.validation)
    assert [network.path.relative_to(both).as_posix() for network in networks] == [
        "int8/tissue.onnx",
        "int8/cell_fold0.onnx",
        "int8/cell_fold1.onnx",
        "int8/validation/tissue_fold1.onnx",
    ]
    for item in networks:
        kinds = {node.op_type for node in item.parse().graph.node}
        assert "QuantizeLinear" in kinds


def test_manifest_keeps_all_else(weights: Path, both: Path) -> None:
    before, after = load_model(weights), load_model(both)
    for key in ("licenses", "training", "postprocessing", "version", "name", "folds", "scores"):
        assert getattr(after.manifest, key) == getattr(before.manifest, key)
    assert after.hashes == before.hashes
    assert (after.precision, after.precisions) == ("float32", ("float32", "int8"))
    held_out = after.in_precision("int8").held_out(1)
    assert held_out.tissue.networks[0].path == both / "int8/validation/tissue_fold1.onnx"


def test_no_network_is_shown_the_fold_that_was_held_out(both: Path) -> None:
    assert load_model(both).manifest.quantization["pairs"] == {
        "int8/tissue.onnx": ["002"],
        "int8/cell_fold0.onnx": ["002"],
        "int8/cell_fold1.onnx": ["000", "001"],
        "int8/validation/tissue_fold1.onnx": ["000", "001"],
    }


def test_detector_gives_nearly_the_same_maps(both: Path, pairs: Path) -> None:
    pair, model = open_pairs(pairs).read(1), load_model(both)
    before, after = (
        Detector(model.in_precision(precision), device="cpu", views=2).predict(pair, maps=True)
        for precision in ("float32", "int8")
    )
    for kind in ("tissue_probability", "cell_probability"):
        old, new = getattr(before, kind), getattr(after, kind)
        assert old.std() > 0.02  # there is something to get wrong
        assert 0 < np.abs(new - old).mean() < 0.01


def test_quality_takes_int8_where_it_pays_and_says_so(
    both: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(folder: Path, fast_at_int8: bool, **choices: str) -> tuple[str, str]:
        monkeypatch.setattr("softctm.inference.load.has_int8_arithmetic", lambda: fast_at_int8)
        detector = load_detector(folder, device="cpu", **choices)
        return detector.model.precision, detector.notice or ""

    for quality in ("fast", "balanced"):
        precision, notice = chosen(both, True, quality=quality)
        assert precision == "int8"
        assert f"--quality {quality} computes in int8" in notice
        assert chosen(both, False, quality=quality) == ("float32", "")
        assert chosen(weights, True, quality=quality) == ("float32", "")
        assert chosen(both, True, quality=quality, precision="float32") == ("float32", "")
    assert chosen(both, True, quality="full") == ("float32", "")
    assert chosen(both, False, precision="int8") == ("int8", "")


def test_command_prints_each_networks_difference(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_model(tmp_path / "model")
    assert quantize(folder, pairs, "--pairs", "1") == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "int8/tissue.onnx",
        "int8/validation/tissue_fold1.onnx",
        "int8/cell_fold0.onnx",
        "int8/cell_fold1.onnx",
    ]
    for line in lines:
        assert 0 < float(line.split("off by ")[1].split()[0]) < 0.01
    assert "softctm validate" in last
    shown = load_model(folder).manifest.quantization["pairs"]
    assert {len(names) for names in shown.values()} == {1}
    assert quantize(folder, pairs) == 2
    assert "has int8 networks already; --overwrite" in capsys.readouterr().err
    assert quantize(folder, pairs, "--pairs", "2", "--overwrite") == 0


def test_a_network_that_loses_too_much_leaves_the_model_as_it_was(
    weights: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (weights / "model.json").read_bytes()
    monkeypatch.setattr(quantized_model, "MAX_MEAN_DIFFERENCE", 1e-9)
    assert quantize(weights, pairs) == 4
    assert "tissue.onnx: 8 bits change its probabilities by" in capsys.readouterr().err
    assert (weights / "model.json").read_bytes() == before
    assert not (weights / "int8").exists()
    (weights / "int8").write_text("in the way")
    assert quantize(weights, pairs) == 6
    assert "int8 cannot be written to" in capsys.readouterr().err
    (weights / "int8").unlink()


def test_bad_use_is_one_clear_line(
    weights: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_fold = write_pairs(tmp_path / "one", 2)
    bare = write_folder(tmp_path / "bare")
    for arguments, code, message in (
        ((weights, pairs, "--pairs", "0"), 2, "--pairs 0"),
        ((weights, tmp_path / "gone"), 3, "gone: no such folder"),
        ((weights, one_fold), 3, "tissue.onnx: every pair is of the fold that was held out"),
        ((bare, pairs), 4, "has no model.json"),
    ):
        assert quantize(*arguments) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert not (weights / "int8").exists()


def test_benchmark_compares_the_two(both: Path, pairs: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.int8", "--views", "1", "--repeats", "1"]
    command += ["--weights", str(both), "--input", str(pairs)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    rows = [line.split(" | ") for line in run.stdout.splitlines() if line.startswith("| ")][2:]
    assert [row[0].strip("| ").split(",")[0] for row in rows] == [
        "tissue network",
        "cells network",
        "pair at 1 views",
        "networks of the detector",
    ]
    for row in rows:
        before, after, ratio = (float(cell.strip(" |")) for cell in row[1:])
        assert before >= 0
        assert ratio > 0 or after == 0
    assert float(run.stdout.split("same cells: ")[1].split("%")[0]) > 50


def test_the_shipped_int8_networks_find_nearly_the_same_cells() -> None:
    source = open_pairs(ROOT / "test/input")
    model = load_model(ROOT / "model_weights")
    detectors = [
        Detector(model.in_precision(precision), device="cpu", views=1) for precision in ("float32", "int8")
    ]
    agreement = Agreement()
    for index in range(len(source)):
        pair = source.read(index)
        agreement.add(*(detector(pair) for detector in detectors))
    assert agreement.expected > 500
    assert agreement.share > 0.9
    assert agreement.class_flips < 0.02 * agreement.expected
