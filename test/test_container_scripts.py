"""The scripts around the image, with a stand-in for docker that notes what it is asked to do."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import numpy as np
import pytest

from softctm.points import CellPoints
from softctm.writers import points_document

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((ROOT / "test/schema/multiple-points.schema.json").read_text())

FAKE_DOCKER = """#!/bin/bash
echo "$*" >>"$FAKE_LOG"
case $1 in
  --version) echo "${FAKE_VERSION:-Docker version 27.0.0, build 0}" ;;
  image)
    [ -z "$FAKE_NO_IMAGE" ] || exit 1
    case $* in
      *api-method*) echo "${FAKE_API:-exec}" ;;
      *Entrypoint*) printf 'python\\n/opt/app/process.py\\n' ;;
      *Size*) echo 123456789 ;;
    esac ;;
  run)
    case $* in
      *check.py*) echo "passed: stand-in" ;;
      *) [ -z "$FAKE_RUN" ] || eval "$FAKE_RUN"
         for word in "$@"; do
           case $word in *:/output) echo '{}' >"${word%:/output}/cell_classification.json" ;; esac
         done ;;
    esac ;;
esac
"""


def load_script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Docker:
    """The stand-in, and the environment in which the scripts find it."""

    def __init__(self, folder: Path) -> None:
        self.program, self.log = folder / "fake-docker", folder / "log"
        self.program.write_text(FAKE_DOCKER)
        self.program.chmod(0o755)
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.environment = os.environ | {
            "DOCKER": str(self.program),
            "FAKE_LOG": str(self.log),
            "TMPDIR": str(self.scratch),
        }

    def script(
        self, name: str, *arguments: str, folder: Path = ROOT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(ROOT / name), *arguments],
            cwd=folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def asked(self, verb: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.split()[0] == verb]


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    return Docker(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--build-arg API=exec --target gpu --tag softctm ."),
        (["--api", "invoke"], "--build-arg API=invoke --target gpu --tag softctm:invoke ."),
        (["--target", "cpu"], "--build-arg API=exec --target cpu --tag softctm:cpu ."),
        (["--target", "cpu", "--api", "invoke"], "--target cpu --tag softctm:cpu-invoke ."),
        (["--tag", "mine:1", "--", "--no-cache"], "--target gpu --tag mine:1 --no-cache ."),
    ],
)
def test_build_asks_for_target_interface_and_name(
    docker: Docker, arguments: list[str], expected: str
) -> None:
    result = docker.script("build.sh", *arguments)
    assert result.returncode == 0, result.stderr
    (build,) = docker.asked("build")
    assert build.startswith("build --platform linux/amd64 ")
    assert build.endswith(expected)
    assert "123 MB" in result.stdout


def test_build_with_podman_keeps_the_labels(docker: Docker) -> None:
    docker.script("build.sh", FAKE_VERSION="podman version 4.3.1")
    assert "--format docker" in docker.asked("build")[0]


@pytest.mark.parametrize("script", ["build.sh", "test.sh", "export.sh"])
@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["--api", "rest"], ["--to"], ["--input"], ["--target"]]
)
def test_wrong_options_end_with_one_line(docker: Docker, script: str, arguments: list[str]) -> None:
    result = docker.script(script, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not docker.log.exists()


@pytest.mark.parametrize(
    "arguments", [["--calls", "two"], ["--calls", "0"], ["--calls", ""], ["--weights", ""]]
)
def test_values_that_make_no_sense_are_refused_before_anything_runs(
    docker: Docker, arguments: list[str]
) -> None:
    result = docker.script("test.sh", *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {arguments[0]} ")
    assert len(result.stderr.splitlines()) == 1
    assert not docker.log.exists()


@pytest.mark.parametrize(
    "others", [["--weights", "."], ["--input", "."], ["--expected", "none"], ["--", "--views", "1"]]
)
def test_only_the_default_run_becomes_the_expected_one(docker: Docker, others: list[str]) -> None:
    result = docker.script("test.sh", "--accept", *others)
    assert result.returncode == 2
    assert result.stderr.startswith("error: --accept writes what the image's own model finds in test/input")
    assert not docker.log.exists()


def test_a_wrong_result_does_not_become_the_expected_one(docker: Docker) -> None:
    expected = ROOT / "test/expected/cell_classification.json"
    before = expected.read_bytes()
    docker.program.write_text(
        FAKE_DOCKER.replace('echo "passed: stand-in"', 'echo "FAILED: stand-in"; exit 1')
    )
    try:
        result = docker.script("test.sh", "--accept")
        assert result.returncode == 1
        assert "FAILED: stand-in" in result.stderr
        assert expected.read_bytes() == before
    finally:
        expected.write_bytes(before)


def test_folders_are_those_where_the_user_stands(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    result = docker.script("test.sh", "--input", "mine", "--weights", "mine", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"-v {tmp_path}/mine:/input:ro" in docker.asked("run")[0]
    assert f"-v {tmp_path}/mine:/opt/ml/model:ro" in docker.asked("run")[0]
    result = docker.script("test.sh", "--input", "gone", folder=tmp_path)
    assert result.stderr == f"error: no folder {tmp_path}/gone\n"
    docker.script("export.sh", "--to", "archives", folder=tmp_path)
    assert (tmp_path / "archives").is_dir()


@pytest.mark.parametrize("script", ["build.sh", "test.sh", "export.sh"])
def test_help_is_the_head_of_the_script(docker: Docker, script: str) -> None:
    result = docker.script(script, "--help")
    assert result.returncode == 0
    assert f"./{script} [" in result.stdout
    assert "set -euo" not in result.stdout


@pytest.mark.parametrize("script", ["build.sh", "test.sh", "export.sh"])
def test_without_docker_the_remedy_is_named(docker: Docker, script: str) -> None:
    result = docker.script(script, DOCKER="no-such-program")
    assert result.returncode == 1
    assert "install it or set DOCKER=podman" in result.stderr


def test_the_run_has_every_limit(docker: Docker) -> None:
    result = docker.script("test.sh", "--expected", "none", "--", "--views", "1")
    assert result.returncode == 0, result.stderr
    assert "softctm (exec): passed: stand-in" in result.stdout.splitlines()[-1]
    run = docker.asked("run")[0]
    for limit in (
        "--network none",
        "--memory 4g --memory-swap 4g",
        "--pids-limit 128",
        "--shm-size 128m",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--read-only --tmpfs /tmp:rw,nosuid,nodev,size=1g",
        "--user 54321:54321",
        "-u HOME",
        ":/input:ro",
    ):
        assert limit in run
    assert run.endswith("python /opt/app/process.py --views 1"), "the image's own command, then the options"
    assert list(docker.scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("exit 137", "exit code 137): 4g of memory were not enough; see docs/grand-challenge.md"),
        ("exit 3", "exit code 3; its last line above says why"),
        ("exit 0", "wrote no cell_classification.json"),
    ],
)
def test_a_failed_run_is_told_and_cleaned_up(docker: Docker, run: str, message: str) -> None:
    result = docker.script("test.sh", "--expected", "none", FAKE_RUN=run)
    assert result.returncode == 1
    assert message in result.stderr.splitlines()[-1]
    assert docker.asked("rm")
    assert list(docker.scratch.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_test_removes_its_container_and_files(docker: Docker, number: int) -> None:
    process = subprocess.Popen(
        ["bash", str(ROOT / "test.sh"), "--expected", "none"],
        env=docker.environment | {"FAKE_RUN": ": >$FAKE_LOG.running; exec sleep 60"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not docker.log.with_suffix(".running").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(docker.scratch.iterdir()) != []
    os.killpg(process.pid, number)  # as a terminal does: to docker, too
    assert process.wait(timeout=30) == 128 + number
    assert any("softctm-test-" in line for line in docker.asked("rm"))
    assert list(docker.scratch.iterdir()) == []


def test_export_needs_an_image(docker: Docker, tmp_path: Path) -> None:
    result = docker.script("export.sh", "--to", str(tmp_path / "dist"), FAKE_NO_IMAGE="yes")
    assert result.returncode == 1
    assert result.stderr == "error: no image softctm; build it with ./build.sh\n"


def _points(*points: tuple[int, int, int, float], image: int = 0) -> dict[tuple[str, int, int, int], float]:
    return {(f"image_{image}", label, x, y): score for x, y, label, score in points}


def test_the_comparison_allows_rounding_and_nothing_more() -> None:
    compare = load_script("test/container/check.py").compare
    expected = _points(*((10 * i, 20, 1 + i % 2, 0.5) for i in range(100)))
    assert compare(expected, expected) == (
        "100 of 100 expected points found, 0 others, largest score difference 0.0000",
        True,
    )
    shifted = _points(*((10 * i + 1, 19, 1 + i % 2, 0.51) for i in range(100)))
    assert compare(shifted, expected)[1]
    assert not compare(_points(*((10 * i + 2, 20, 1 + i % 2, 0.5) for i in range(100))), expected)[1]
    assert not compare(_points(*((10 * i, 20, 2 - i % 2, 0.5) for i in range(100))), expected)[1], "classes"
    assert not compare(_points(*((10 * i, 20, 1 + i % 2, 0.53) for i in range(100))), expected)[1], "scores"
    one_less = dict(list(expected.items())[1:])
    assert compare(one_less, expected)[1]
    assert not compare(dict(list(expected.items())[2:]), expected)[1], "two of a hundred are too many"
    other_image = _points(*((10 * i, 20, 1 + i % 2, 0.5) for i in range(100)), image=1)
    assert not compare(other_image, expected)[1]
    assert not compare({}, expected)[1]
    assert compare({}, {})[1], "no cells is a valid answer"


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """Two cells in the second of two pairs, the first of which has none."""
    cells = CellPoints(
        np.array([3, 1023], np.int32), np.array([5, 0], np.int32), np.array([1, 2], np.uint8),
        np.array([0.25, 1.0], np.float32),
    )  # fmt: skip
    path = tmp_path / "cell_classification.json"
    path.write_text(json.dumps(points_document([CellPoints.empty(), cells])))
    pairs = [{"index": 0, "tumor_cells": 0}, {"index": 1, "tumor_cells": 1}]
    (tmp_path / "run.json").write_text(json.dumps({"pairs": pairs}))
    return path


def checked(result: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    check = load_script("test/container/check.py")
    code = check.main([str(result), str(ROOT / "test/schema/multiple-points.schema.json")])
    return code, capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("pairs", "shown"),
    [
        ([{"tumor_cells": 0}, {"tumor_cells": 1}], "in 2 pairs"),
        ([{"tumor_cells": 1}], "in 1 pair"),
        ([{"tumor_cells": 1}, {"error": "damaged"}], "in 1 of 2 pairs"),
    ],
)
def test_pairs_without_cells_are_counted_too(
    result: Path, capsys: pytest.CaptureFixture[str], pairs: list[dict[str, Any]], shown: str
) -> None:
    result.with_name("run.json").write_text(json.dumps({"pairs": pairs}))
    assert checked(result, capsys) == (
        0,
        f"passed: 2 cells (1 TC, 1 BC) {shown}, valid against the schema",
    )


def test_what_the_schema_lets_pass_and_the_challenge_does_not(
    result: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(result.read_text())
    good = document["points"][0]
    for fault in (
        {"point": [1024, 5, 1]},
        {"point": [-1, 5, 1]},
        {"point": [3.5, 5, 1]},
        {"point": [3, 5, 3]},
        {"point": [*document["points"][1]["point"][:2], 1]},
    ):
        document["points"][0] = good | fault
        result.write_text(json.dumps(document))
        code, line = checked(result, capsys)
        assert (code, line[:8]) == (1, "FAILED: "), fault
    document["points"][0] = {"name": "image_1", "point": [3, 5, 1]}
    result.write_text(json.dumps(document))
    assert checked(result, capsys)[0] == 1, "no probability"
    document["points"][0] = good
    result.write_text(json.dumps(document))
    for record in ("", "{}", "[]", '{"pairs": 1}'):
        result.with_name("run.json").write_text(record)
        code, line = checked(result, capsys)
        assert (code, line[:16]) == (1, "FAILED: run.json"), record


def test_what_is_written_fits_grand_challenges_schema() -> None:
    cells = CellPoints(
        np.array([0, 1023], np.int32),
        np.array([5, 7], np.int32),
        np.array([1, 2], np.uint8),
        np.array([0.25, 1.0], np.float32),
    )
    jsonschema.validate(points_document([cells, None, CellPoints.empty()]), SCHEMA)
    for fault in (
        {"type": "Points"},
        {"extra": 1},
        {"points": [{"point": [1, 2]}]},
        {"version": {"major": 1}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(points_document([cells]) | fault, SCHEMA)


@pytest.fixture
def bill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    sbom = load_script("scripts/sbom.py")
    monkeypatch.setattr(sbom, "APP", tmp_path)
    (tmp_path / "src/softctm").mkdir(parents=True)
    (tmp_path / "src/softctm/__init__.py").write_text('__version__ = "9.8.7"\n')
    (tmp_path / "model_weights").mkdir()
    files = {
        "float32": {"path": "tissue.onnx", "sha256": "0" * 64},
        "int8": {"path": "int8/tissue.onnx", "sha256": "1" * 64},
    }
    model = {"version": "2.0.0", "licenses": ["CC-BY-NC-4.0"]}
    model |= {"stages": {"tissue": {"networks": [{"files": files}]}, "cells": {"networks": []}}}
    (tmp_path / "model_weights/model.json").write_text(json.dumps(model))
    document: dict[str, Any] = sbom.document()
    return document


def test_the_bill_of_materials_names_packages_interpreter_and_model(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["version"] == "9.8.7"
    by_name = {entry["name"]: entry for entry in bill["components"]}
    assert by_name["numpy"]["version"] == np.__version__
    assert by_name["numpy"]["purl"] == f"pkg:pypi/numpy@{np.__version__}"
    assert by_name["numpy"]["licenses"]
    assert by_name["cpython"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert by_name["int8/tissue.onnx"]["type"] == "machine-learning-model"
    assert by_name["tissue.onnx"]["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]
    assert by_name["tissue.onnx"]["licenses"] == [{"license": {"name": "CC-BY-NC-4.0"}}]
    references = [entry["bom-ref"] for entry in bill["components"]]
    assert len(references) == len(set(references))


def test_the_bill_turns_into_a_table(bill: dict[str, Any]) -> None:
    table = load_script("scripts/sbom.py").markdown(bill)
    assert f"| numpy | {np.__version__} | " in table
    assert "| tissue.onnx | 2.0.0 | CC-BY-NC-4.0 |" in table
