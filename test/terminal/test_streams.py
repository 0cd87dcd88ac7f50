"""Standard streams that are closed, full, gone or of another encoding: no command loses its result.

Each command runs as a process whose streams a shell prepares, and its files are compared with those of a
run with good streams.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_networks import network, write_folder, write_manifest

from softctm.cli import main

SOURCE = Path(__file__).resolve().parents[2] / "src"

# A process a command, so that each meets its streams as they are; forked, because importing takes long.
DRIVER = """
import json, os, sys
import numpy, scipy.ndimage, scipy.spatial, skimage.measure, onnxruntime, matplotlib.figure, jinja2
from softctm.cli import main
codes = {}
for name, words in json.loads(sys.argv[1]).items():
    child = os.fork()
    if child == 0:
        sys.exit(main(words))
    codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
with open(sys.argv[2], "w") as file:
    json.dump(codes, file)
"""

STREAMS = {
    "good": "",
    "stdout closed": ">&-",
    "stdout full": ">/dev/full",
    "stderr closed": "2>&-",
    "all full": ">/dev/full 2>/dev/full",
    "all closed": ">&- 2>&- <&-",
    "reader gone": "| true",
    "latin-1": "PYTHONIOENCODING=latin-1",
    "ASCII": "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
}
"""Name → what the shell is told: redirections, or variables."""

NO_STDOUT = {"stdout closed", "stdout full", "all full", "all closed"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of four pairs of two patients, and a model of two folds."""
    folder = tmp_path_factory.mktemp("given")
    assert main(["phantom", str(folder / "release"), "--pairs", "4", "--layout", "ocelot"]) == 0
    model = write_folder(folder / "model", folds=2, gain=0.1)
    (model / "validation").mkdir()
    tissue = model / "validation/tissue_fold1.onnx"
    tissue.write_bytes(network(7, 3, 2, gain=0.1))
    folds = str(model / "validation/folds.json")
    assert main(["folds", folds, "--data", str(folder / "release"), "--folds", "2"]) == 0
    digest = hashlib.sha256(tissue.read_bytes()).hexdigest()
    document = write_manifest(
        model,
        postprocessing={"method": "peaks", "sigma_px": 2.0, "distance_px": 4, "threshold": 0.3},
        folds="validation/folds.json",
    )
    entry = {"fold": 1, "files": {"float32": {"path": "validation/tissue_fold1.onnx", "sha256": digest}}}
    document["stages"]["tissue"]["validation"] = [entry]
    (model / "model.json").write_text(json.dumps(document))
    return folder


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": "/tmp"}


def commands(given: Path, out: Path) -> dict[str, list[str]]:
    """Every quick command that needs no PyTorch, in an order in which each finds what it reads."""
    release = ["--data", str(given / "release")]
    weights = ["--weights", str(out / "model")]
    model = [*weights, "--device", "cpu", "--views", "1"]
    scored = ["--predictions", str(out / "predict/cell_classification.json"), "--resamples", "2"]
    scored += ["--truth", str(given / "release")]
    return {
        "help": ["--help"],
        "version": ["--version"],
        "help of a command": ["predict", "--help"],
        "no such command": ["nonsense"],
        "bad input": ["predict", "--input", str(out / "nowhere"), "--output", str(out / "nothing"), *model],
        "phantom": ["phantom", str(out / "phantom"), "--pairs", "1"],
        "folds": ["folds", str(out / "folds.json"), *release, "--folds", "2"],
        "predict": ["predict", "--input", str(given / "release"), "--output", str(out / "predict"), *model,
                    "--also", "csv"],
        "evaluate": ["evaluate", *scored, "--output", str(out / "evaluate")],
        "evaluate, printed": ["evaluate", *scored],
        "report": ["report", str(out / "report.html"), *scored, "--each", "1"],
        "validate": ["validate", *release, *model, "--json", str(out / "validate.json")],
        "quantize": ["quantize", *weights, "--calibrate", str(given / "release"), "--pairs", "1"],
    }  # fmt: skip


def run_all(given: Path, out: Path, streams: str) -> tuple[dict[str, int], set[str]]:
    """Exit codes by command, and the files that were written."""
    shutil.copytree(given / "model", out / "model")
    variables, redirections = (streams, "") if "=" in streams else ("", streams)
    script = f'{variables} "$@" {redirections}'
    words = [sys.executable, "-c", DRIVER, json.dumps(commands(given, out)), str(out / "codes.json")]
    subprocess.run(
        ["bash", "-c", script, "bash", *words],
        env=environment(),
        timeout=900,
        capture_output=not redirections,
    )
    codes = json.loads((out / "codes.json").read_text())
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    return codes, files - {"codes.json"}


@pytest.fixture(scope="module")
def good(given: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], set[str]]:
    return run_all(given, tmp_path_factory.mktemp("good"), "")


@pytest.mark.slow
def test_with_good_streams_every_command_works(good: tuple[dict[str, int], set[str]]) -> None:
    codes, files = good
    assert {name: code for name, code in codes.items() if code} == {"no such command": 2, "bad input": 3}
    assert {"predict/cell_classification.json", "predict/csv/001.csv", "folds.json"} <= files
    assert {"report.html", "validate.json", "model/int8/cell_fold0.onnx"} <= files
    assert any(name.startswith("evaluate/") for name in files)


@pytest.mark.slow
@pytest.mark.parametrize("streams", [name for name in STREAMS if name != "good"])
def test_no_stream_costs_a_result(
    given: Path, good: tuple[dict[str, int], set[str]], tmp_path: Path, streams: str
) -> None:
    codes, files = run_all(given, tmp_path, STREAMS[streams])
    expected, expected_files = good
    if streams in NO_STDOUT:  # what is only printed is lost
        printed = {"help", "version", "help of a command", "evaluate, printed"}
        expected = expected | dict.fromkeys(printed, 6)
    assert codes == expected
    assert files == expected_files


@pytest.mark.parametrize("streams", [">/dev/full", ">&- 2>&-", "PYTHONIOENCODING=latin-1"])
def test_quick_commands(tmp_path: Path, streams: str) -> None:
    """The same for two quick commands, in every run of the tests."""
    variables, redirections = (streams, "") if "=" in streams else ("", streams)
    command = f'{variables} "{sys.executable}" -m softctm'
    script = (
        f"{command} phantom out --pairs 1 {redirections}; echo $? >&3; "
        f"{command} predict --help {redirections}; echo $? >&3"
    )
    done = subprocess.run(
        ["bash", "-c", f"exec 3>codes; {script}"], env=environment(), cwd=tmp_path, capture_output=True
    )
    codes = (tmp_path / "codes").read_text().split()
    assert codes == ["0", "0" if variables else "6"]
    assert (tmp_path / "out" / "metadata.json").exists()
    assert b"Traceback" not in done.stderr


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(params=[">/dev/full 2>/dev/full", ">&- 2>&-"])
def server(given: Path, tmp_path: Path, port: int, request: pytest.FixtureRequest) -> Iterator[int]:
    words = [sys.executable, "-m", "softctm", "serve", "--port", str(port), "--device", "cpu", "--views", "1"]
    words += ["--weights", str(given / "model"), "--input", str(given / "release")]
    words += ["--output", str(tmp_path / "out")]
    script = f'exec "$@" {request.param}'
    process = subprocess.Popen(["bash", "-c", script, "bash", *words], env=environment())
    yield port
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_the_server_answers_without_streams(server: int, tmp_path: Path) -> None:
    def ask(method: str, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", server, timeout=120)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if ask("GET", "/health") == 200:
                break
        except ConnectionError:
            pass
        time.sleep(0.1)
    assert ask("GET", "/nowhere") == 404
    assert ask("POST", "/invoke") == 201
    assert (tmp_path / "out" / "cell_classification.json").exists()
