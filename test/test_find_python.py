"""scripts/find_python.sh and the Makefile take whichever Python fits; the interpreters here are stubs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts/find_python.sh"

# Understands just what the script and the Makefile say to a Python.
STUB = """#!/bin/sh
echo "{name} $*" >>"{log}"
case $1 in
  -c) [ {minor} -ge 11 ] && [ {venv} = yes ] ;;
  -m) [ "$2" != venv ] || {{ mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; }} ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder for stub interpreters, and what `make` and `sh` themselves need."""
    for program in ("sh", "make", "touch", "mkdir", "cp", "echo"):
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"needs {program}")
        (tmp_path / program).symlink_to(found)
    return tmp_path


def install(machine: Path, name: str, minor: int, venv: str = "yes") -> None:
    stub = machine / name
    stub.write_text(STUB.format(name=name, minor=minor, venv=venv, log=machine / "log"))
    stub.chmod(0o755)


def find(machine: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(machine / "sh"), str(SCRIPT), *commands],
        env={"PATH": str(machine)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_any_python_from_3_11_on_will_do(machine: Path, minor: int) -> None:
    install(machine, "python3", 9)
    install(machine, f"python3.{minor}", minor)
    assert find(machine).stdout == f"python3.{minor}\n"


def test_a_bare_python3_is_enough(machine: Path) -> None:
    install(machine, "python3", 13)
    assert find(machine).stdout == "python3\n"


def test_a_python_without_venv_is_passed_over(machine: Path) -> None:
    install(machine, "python3.11", 11, venv="no")
    install(machine, "python3.13", 13)
    assert find(machine).stdout == "python3.13\n"


@pytest.mark.parametrize(("minor", "venv"), [(10, "yes"), (13, "no")])
def test_without_any_one_line_says_what_to_install(machine: Path, minor: int, venv: str) -> None:
    install(machine, "python3", minor, venv)
    result = find(machine)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "apt-get install python3-venv" in result.stderr


def test_an_own_choice_is_the_only_one_tried(machine: Path) -> None:
    install(machine, "python3.11", 11)
    install(machine, "mine", 12)
    assert find(machine, "mine").stdout == "mine\n"
    assert "among: absent;" in find(machine, "absent").stderr


def make(machine: Path, target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    checkout = machine / "checkout"
    if not checkout.exists():
        (checkout / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", checkout)
        shutil.copy(SCRIPT, checkout / "scripts")
        for name in ("requirements-cpu.txt", "pyproject.toml"):
            (checkout / name).touch()
    return subprocess.run(
        [str(machine / "make"), "-C", str(checkout), target, *arguments],
        env={"PATH": str(machine)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_sets_up_once_and_runs_the_demo(machine: Path) -> None:
    install(machine, "python3.14", 14)
    for _ in range(2):
        result = make(machine, "demo")
        assert result.returncode == 0, result.stderr
    log = (machine / "log").read_text().splitlines()
    assert log.count("python3.14 -m venv .venv") == 1
    assert log.count("python3.14 scripts/demo.py") == 2
    assert any("--require-hashes" in line for line in log)


def test_make_without_python_ends_in_the_same_line(machine: Path) -> None:
    result = make(machine, "demo")
    assert result.returncode != 0
    assert "error: no Python 3.11 or later with venv" in result.stderr
    assert "Traceback" not in result.stderr


def test_make_takes_a_python_by_name(machine: Path) -> None:
    install(machine, "python3.11", 11)
    install(machine, "mine", 12)
    assert make(machine, "test", "PYTHON=mine").returncode == 0
    assert "mine -m venv .venv-test" in (machine / "log").read_text().splitlines()
