"""What the command line says of errors that are no expected ones, and of packages that are not there."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tomllib
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from softctm import cli
from softctm.errors import MissingPackageError, PairError, SoftCTMError
from softctm.extras import EXTRA_OF, require
from softctm.terminal.unexpected import as_expected

ROOT = Path(__file__).resolve().parents[1]


FOLDS = ["folds", "folds.json", "--data", "d"]


def raising(error: BaseException) -> Callable[[Namespace], int]:
    """A command that fails."""

    def run(args: Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (PairError("pair 3: bad"), 3, "error: pair 3: bad"),
        (
            KeyError("x"),
            1,
            "error: unexpected KeyError: 'x'; this is a bug, please report it (--debug shows where)",
        ),
        (
            AssertionError(),
            1,
            "error: unexpected AssertionError; this is a bug, please report it (--debug shows where)",
        ),
        (ValueError("two\n  lines"), 1, "error: unexpected ValueError: two lines; this is a bug"),
        (MemoryError(), 1, "error: out of memory; free some"),
        (
            OSError(errno.ENOSPC, "No space left on device", "cache/a.npy"),
            6,
            "error: cache/a.npy cannot be written (No space left on device); make room",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "cache/a.npy"),
            6,
            "error: cache/a.npy cannot be written (Read-only file system)",
        ),
        (
            PermissionError(13, "Permission denied", "locked/x"),
            3,
            "error: locked/x: cannot be used (Permission denied); check the path and its permissions",
        ),
        (
            OSError(errno.EIO, "Input/output error", "disk/x"),
            3,
            "error: disk/x: cannot be read or written (Input/output error); check the disk it lies on",
        ),
        (
            OSError(errno.ENOTDIR, "Not a directory", "file/x"),
            3,
            "error: file/x: cannot be used (Not a directory); check the path",
        ),
        (
            OSError(errno.EFBIG, "File too large", "cache/a.npy"),
            6,
            "error: cache/a.npy cannot be written (File too large); make room",
        ),
        (
            OSError(36, "File name too long", "a" * 300),
            3,
            f"error: {'a' * 300}: cannot be used (File name too long)",
        ),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch.nn"),
            10,
            "error: torch is not installed",
        ),
        (
            ModuleNotFoundError("x", name="softctm.gone"),
            1,
            "error: unexpected ModuleNotFoundError: x; this is",
        ),
        (
            ImportError("libtorch.so: cannot open", name="torch._C"),
            10,
            "error: torch is installed but cannot be imported (libtorch.so: cannot open); install it",
        ),
        (ImportError("cannot import name 'x'", name="softctm.y"), 1, "error: unexpected ImportError: cannot"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_any_error_is_one_line_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    monkeypatch.setattr("softctm.commands.folds.run", raising(error))
    assert cli.main(FOLDS) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    monkeypatch.setattr("softctm.commands.folds.run", raising(KeyError("x")))
    assert cli.main(["--debug", *FOLDS] if place == "before" else [*FOLDS, "--debug"]) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert last.startswith("error: unexpected KeyError: 'x'; this is a bug")


def test_an_expected_error_stays_itself() -> None:
    error = PairError("pair 3: bad")
    assert as_expected(error) is error
    assert isinstance(as_expected(RuntimeError("x")), SoftCTMError)


# --- packages that are not there -------------------------------------------------------------------------


def test_every_optional_package_has_its_extra() -> None:
    """The table says what pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        re.split(r"[\[=<>]", requirement)[0].replace("-", "_"): extra
        for extra, requirements in project["optional-dependencies"].items()
        if extra not in ("dev", "gpu")
        for requirement in requirements
    }
    declared["openslide"] = declared.pop("openslide_python")  # as it is imported
    assert declared.items() <= EXTRA_OF.items()
    assert set(EXTRA_OF.values()) == set(declared.values())


def test_what_is_required_and_there_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    require("colorsys")
    assert "colorsys" not in sys.modules
    with pytest.raises(MissingPackageError, match="nonesuch is not installed; install it: pip"):
        require("colorsys", "nonesuch")


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("torch", ["train", "all", "--data", "d"], "train"),
        ("torch", ["export", "--data", "d", "--output", "o", "--name", "n"], "train"),
        ("safetensors", ["train", "all", "--data", "d"], "train"),
        ("jinja2", ["report", "r.html", "--predictions", "p", "--truth", "t"], "report"),
        ("matplotlib", ["report", "r.html", "--predictions", "p", "--truth", "t"], "report"),
        ("onnxruntime", ["predict", "--input", "test/input", "--output", "{tmp}"], "cpu"),
        ("onnxruntime", ["validate", "--data", "d"], "cpu"),
        ("onnxruntime", ["quantize", "--calibrate", "test/input"], "cpu"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    tmp_path: Path, package: str, words: list[str], extra: str
) -> None:
    code = (
        "import sys\nsys.modules[sys.argv[1]] = None\n"  # how Python notes that there is no such module
        "from softctm.cli import main\nsys.exit(main(sys.argv[2:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, package, *(word.format(tmp=tmp_path) for word in words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "SOFTCTM_WEIGHTS": str(ROOT / "test/hand_set")},
    )
    assert done.returncode == 10, done.stderr
    assert done.stderr.startswith(
        f"error: {package} is not installed; install it: pip install -e '.[{extra}]' in SoftCTM's folder"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["evaluate", "nuclei", "--x"], ["evaluate nuclei", "--x"]),
        (["evaluate", "cells", "--x"], ["evaluate", "--x"]),
        (["evaluate", "--x"], ["evaluate", "--x"]),
        (["train", "cells", "--data", "d"], ["train", "cells", "--data", "d"]),
        (["train", "all"], ["train", "all"]),
        (["train", "nuclei"], ["train nuclei"]),
        (["--debug", "import", "cellvit", "f"], ["--debug", "import cellvit", "f"]),
        (["--help"], ["--help"]),
    ],
)
def test_a_command_and_what_it_acts_on_are_one(words: list[str], expected: list[str]) -> None:
    assert cli._joined(words) == expected
