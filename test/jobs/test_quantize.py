"""An 8-bit model folder does everything that the model does, and its score out of fold stays one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from inputs import write_pairs
from tiny_networks import network, write_folder, write_manifest

from benchmarks.agreement import Agreement
from softctm.cli import main
from softctm.inference.detector import Detector
from softctm.jobs import quantize as quantized_model
from softctm.model.loading import load_model
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
    write_manifest(
        folder,
        license="CC-BY-NC-4.0",
        precision="float32",
        training={"data": "made up"},
        scores={"out_of_fold": {"mean_f1": 1}},
        postprocessing={"method": "peaks", "sigma_px": 2.0, "distance_px": 4, "threshold": 0.3},
        validation={
            "folds": "validation/folds.json",
            "tissue": [{"file": "validation/tissue_fold1.onnx", "sha256": digest, "fold": 1}],
        },
    )
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "weights")


@pytest.fixture(scope="module")
def small(weights: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight") / "new" / "model"
    assert quantize(weights, pairs, folder) == 0
    return folder


def quantize(weights: Path, pairs: Path, output: Path, *more: str) -> int:
    places = ["--weights", str(weights), "--calibrate", str(pairs), "--output", str(output)]
    return main(["quantize", *places, *more])


def test_every_network_is_in_8_bits_and_verified_by_its_hash(weights: Path, small: Path) -> None:
    model = load_model(small)
    networks = (*model.tissue.networks, *model.cell.networks, *model.validation_tissue)
    assert [network.path.relative_to(small).as_posix() for network in networks] == [
        "tissue.onnx",
        "cell_fold0.onnx",
        "cell_fold1.onnx",
        "validation/tissue_fold1.onnx",
    ]
    for item in networks:
        kinds = {node.op_type for node in onnx.load_model_from_string(item.read()).graph.node}
        assert "QuantizeLinear" in kinds
        assert item.path.read_bytes() != (weights / item.path.relative_to(small)).read_bytes()


def test_manifest_says_what_changed_and_keeps_the_rest(weights: Path, small: Path) -> None:
    before, after = load_model(weights), load_model(small)
    for key in ("license", "training", "postprocessing", "version"):
        assert after.manifest[key] == before.manifest[key]
    assert after.postprocessing == before.postprocessing
    assert after.name == "tiny-8bit"
    assert after.manifest["precision"].startswith("8-bit")
    assert "scores" not in after.manifest  # they are the other networks'
    assert after.manifest["quantization"]["made_from"]["cell_fold1.onnx"] == before.hashes["cell_fold1.onnx"]
    folds = "validation/folds.json"
    assert (small / folds).read_bytes() == (weights / folds).read_bytes()
    assert after.for_fold(1).tissue.networks[0].path.name == "tissue_fold1.onnx"


def test_no_network_is_shown_the_fold_that_it_was_kept_from(small: Path) -> None:
    assert load_model(small).manifest["quantization"]["pairs"] == {
        "tissue.onnx": ["002"],
        "cell_fold0.onnx": ["002"],
        "cell_fold1.onnx": ["000", "001"],
        "validation/tissue_fold1.onnx": ["000", "001"],
    }


def test_detector_gives_nearly_the_same_maps(weights: Path, small: Path, pairs: Path) -> None:
    pair = open_pairs(pairs).read(1)
    before, after = (
        Detector(load_model(folder), device="cpu", views=2).predict(pair, maps=True)
        for folder in (weights, small)
    )
    for kind in ("tissue_probability", "cell_probability"):
        old, new = getattr(before, kind), getattr(after, kind)
        assert old.std() > 0.02  # there is something to get wrong
        assert 0 < np.abs(new - old).mean() < 0.01


def test_command_prints_each_networks_difference(
    weights: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(weights, pairs, tmp_path / "out", "--pairs", "1") == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "tissue.onnx",
        "validation/tissue_fold1.onnx",
        "cell_fold0.onnx",
        "cell_fold1.onnx",
    ]
    for line in lines:
        assert 0 < float(line.split("off by ")[1].split()[0]) < 0.01
    assert "softctm validate" in last
    shown = load_model(tmp_path / "out").manifest["quantization"]["pairs"]
    assert {len(names) for names in shown.values()} == {1}


def test_a_network_that_loses_too_much_is_refused(
    weights: Path,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(quantized_model, "MAX_MEAN_DIFFERENCE", 1e-9)
    assert quantize(weights, pairs, tmp_path / "out") == 4
    assert "tissue.onnx: 8 bits change its probabilities by" in capsys.readouterr().err
    assert not (tmp_path / "out" / "model.json").exists()


def test_bad_use_is_one_clear_line(
    weights: Path, small: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    one_fold = write_pairs(tmp_path / "one", 2)
    bare = write_folder(tmp_path / "bare")
    for arguments, code, message in (
        ((weights, pairs, weights), 2, "is the model itself"),
        ((weights, pairs, output, "--pairs", "0"), 2, "--pairs 0"),
        ((weights, tmp_path / "gone", output), 3, "gone: no such folder"),
        ((weights, one_fold, output), 3, "tissue.onnx: every pair is of the fold that it was kept from"),
        ((bare, pairs, output), 4, "has no model.json"),
        ((small, pairs, output), 4, "tissue.onnx: is in 8 bits already"),
    ):
        assert quantize(*arguments) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert not output.exists()


def test_benchmark_compares_the_two(weights: Path, small: Path, pairs: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.eight_bit", "--views", "1", "--repeats", "1"]
    command += ["--weights", str(weights), "--eight-bit", str(small), "--input", str(pairs)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    rows = [line.split(" | ") for line in run.stdout.splitlines() if line.startswith("| ")][2:]
    assert [row[0].strip("| ").split(",")[0] for row in rows] == [
        "tissue network",
        "cell network",
        "pair at 1 views",
        "networks of the detector",
    ]
    for row in rows:
        before, after, ratio = (float(cell.strip(" |")) for cell in row[1:])
        assert before >= 0
        assert ratio > 0 or after == 0
    assert float(run.stdout.split("same cells: ")[1].split("%")[0]) > 50


def test_the_shipped_8_bit_model_finds_nearly_the_same_cells() -> None:
    source = open_pairs(ROOT / "test/input")
    folders = (ROOT / "model_weights", ROOT / "model_weights/eight_bit")
    detectors = [Detector(load_model(folder), device="cpu", views=1) for folder in folders]
    agreement = Agreement()
    for index in range(len(source)):
        pair = source.read(index)
        agreement.add(*(detector(pair) for detector in detectors))
    assert agreement.expected > 500
    assert agreement.share > 0.9
    assert agreement.class_flips < 0.02 * agreement.expected
