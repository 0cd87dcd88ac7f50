"""`process.py` as the container runs it: exit codes, and what stands on stdout and stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from inputs import entry, write_metadata, write_pairs

PROCESS = Path(__file__).resolve().parents[1] / "process.py"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small hand-set networks."""
    import hand_set_networks

    folder = tmp_path_factory.mktemp("weights")
    hand_set_networks.write(folder)
    return folder


def environment() -> dict[str, str]:
    """Neither an installed package nor a configured model: as from a bare clone."""
    hidden = ("PYTHONPATH", "SOFTCTM_WEIGHTS")
    return {key: value for key, value in os.environ.items() if key not in hidden} | {"OMP_NUM_THREADS": "1"}


def process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROCESS), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=600, **options)


def job(folder: Path, weights: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return process(
        "--input",
        folder,
        "--output",
        folder / "out",
        "--weights",
        weights,
        "--views",
        1,
        "--device",
        "cpu",
        *more,
    )


def last_line(run: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in run.stderr
    return run.stderr.splitlines()[-1]


def test_all_is_well(tmp_path: Path, weights: Path) -> None:
    run = job(write_pairs(tmp_path, 2), weights)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert "pair 1/2 000: " in run.stdout
    assert run.stdout.splitlines()[-1].startswith(
        f"wrote {tmp_path}/out/cell_classification.json: 2 of 2 pairs"
    )
    assert (
        json.loads((tmp_path / "out" / "cell_classification.json").read_text())["type"] == "Multiple points"
    )


def test_partial_result(tmp_path: Path, weights: Path) -> None:
    (write_pairs(tmp_path, 2) / "images/cell_patches/001.png").write_bytes(b"")
    run = job(tmp_path, weights)
    assert run.returncode == 7
    assert "warning: pair 001: images/cell_patches/001.png: is empty (0 bytes); copy it again" in run.stderr
    assert last_line(run).startswith("error: 1 of 2 pairs failed")
    assert (tmp_path / "out" / "cell_classification.json").exists()
    run = job(tmp_path, weights, "--allow-partial")
    assert run.returncode == 0
    assert "pair 001" in last_line(run)


def no_networks(folder: Path) -> None:
    folder.mkdir()


def corrupt(folder: Path) -> None:
    folder.mkdir()
    for name in ("tissue.onnx", "cell_fold0.onnx"):
        (folder / name).write_bytes(b"no network")


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda d: None, 3, "error: input folder {d}/in does not exist; check --input"),
        (
            lambda d: (d / "in").mkdir(),
            3,
            "error: input folder {d}/in is empty: expected images/cell_patches/",
        ),
        (
            lambda d: (write_pairs(d / "in", 1) / "metadata.json").unlink(),
            3,
            "error: metadata.json: is missing",
        ),
        (
            lambda d: write_metadata(write_pairs(d / "in", 1), [entry(-20)]),
            3,
            "error: no pair could be processed",
        ),
        (lambda d: (write_pairs(d / "in", 1), (d / "out").touch()), 6, "error: output folder {d}/out cannot"),
        (
            lambda d: (write_pairs(d / "in", 1), no_networks(d / "w")),
            4,
            "error: {d}/w: holds neither model.json",
        ),
        (lambda d: (write_pairs(d / "in", 1), corrupt(d / "w")), 4, "error: {d}/w/"),
    ],
    ids=["missing", "empty", "no-metadata", "outside", "output", "no-model", "corrupt-model"],
)
def test_exit_codes_and_last_line(tmp_path: Path, weights: Path, spoil: Any, code: int, message: str) -> None:
    spoil(tmp_path)
    chosen = tmp_path / "w" if (tmp_path / "w").exists() else weights
    run = process(
        "--input", tmp_path / "in", "--output", tmp_path / "out", "--weights", chosen, "--device", "cpu"
    )
    assert run.returncode == code, run.stderr
    assert last_line(run).startswith(message.format(d=tmp_path))


def test_an_option_that_does_not_exist() -> None:
    run = process("--nonsense")
    assert run.returncode == 2
    assert "--nonsense" in last_line(run)


def test_defaults_are_the_containers() -> None:
    text = " ".join(process("--help").stdout.split())
    for default in ("(default: /input)", "(default: /output)", "(default: full)"):
        assert default in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_job_keeps_what_is_done(tmp_path: Path, weights: Path, number: signal.Signals) -> None:
    write_pairs(tmp_path, 30)
    arguments = ["--input", tmp_path, "--output", tmp_path / "out", "--weights", weights, "--device", "cpu"]
    command = [sys.executable, PROCESS, *arguments, "--views", "1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as running:
        assert running.stdout is not None
        while not running.stdout.readline().startswith("pair 2/30"):
            assert running.poll() is None
        running.send_signal(number)
        begin = time.monotonic()
        _, errors = running.communicate(timeout=60)
    assert time.monotonic() - begin < 30
    assert running.returncode == 130
    assert errors.splitlines()[-1] == "error: interrupted"
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert 2 <= len(record["pairs"]) < 30
    names = {p["name"] for p in json.loads((tmp_path / "out/cell_classification.json").read_text())["points"]}
    assert names <= {f"image_{i}" for i in range(len(record["pairs"]))}


def test_a_reader_that_goes_away_costs_no_result(tmp_path: Path, weights: Path) -> None:
    write_pairs(tmp_path, 2)
    command = (
        f"{sys.executable} {PROCESS} --input {tmp_path} --output {tmp_path}/out --weights {weights} "
        "--device cpu --views 1 | true"
    )
    subprocess.run(["bash", "-o", "pipefail", "-c", command], env=environment(), check=True, timeout=600)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "complete"


def test_a_bar_on_a_terminal(tmp_path: Path, weights: Path) -> None:
    """On a terminal the progress is a bar with the time left, and still nothing on stderr."""
    write_pairs(tmp_path, 2)
    leader, follower = os.openpty()
    command = [
        sys.executable,
        PROCESS,
        "--input",
        tmp_path,
        "--output",
        tmp_path / "out",
        "--weights",
        weights,
    ]
    with subprocess.Popen(
        [*map(str, command), "--views", "1", "--device", "cpu"],
        stdout=follower,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as running:
        os.close(follower)
        shown = b""
        while True:
            try:
                shown += os.read(leader, 4096)
            except OSError:  # how Linux says that the other side is closed
                break
        assert running.stderr is not None
        errors = running.stderr.read()
    os.close(leader)
    assert running.returncode == 0
    assert errors == b""
    assert b"2/2 [" in shown
    assert b"pair/s" in shown or b"s/pair" in shown
