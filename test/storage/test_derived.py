"""Derived arrays: made once, made anew when a source changes, never seen half-written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softctm.errors import InputError, OutputError
from softctm.storage.derived import content_digest, derived_array


def names(folder: Path) -> list[str]:
    """Of the files there, but for the lock, which stays."""
    return sorted(file.name for file in folder.iterdir() if file.name != ".lock")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.csv"
    path.write_text("1,2,3")
    return path


class Builder:
    """Reads the numbers of a file, and counts how often."""

    def __init__(self, source: Path) -> None:
        self.source, self.times = source, 0

    def __call__(self) -> np.ndarray:
        self.times += 1
        return np.array([float(part) for part in self.source.read_text().split(",")])


def test_made_once(tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture) -> None:
    build, path = Builder(source), tmp_path / "new" / "array.npy"
    for _ in range(3):
        np.testing.assert_array_equal(derived_array(path, [source], {"a": 1}, build), [1, 2, 3])
    assert build.times == 1
    assert not caplog.messages
    assert names(path.parent) == ["array.npy", "array.npy.sources.json"]


def same_size(source: Path) -> None:
    source.write_text("4,5,6")


def same_time(source: Path) -> None:
    before = source.stat()
    source.write_text("7,8,9,10")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [same_size, same_time])
def test_changed_source_is_named_and_read_again(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None]
) -> None:
    build, path = Builder(source), tmp_path / "array.npy"
    derived_array(path, [source], None, build)
    digest = content_digest(path)
    change(source)
    np.testing.assert_array_equal(derived_array(path, [source], None, build), build())
    assert caplog.messages == [f"{path} is made anew: {source} changed since"]
    assert content_digest(path) != digest


def test_other_settings_and_sources_make_it_anew(tmp_path: Path, source: Path) -> None:
    build, path = Builder(source), tmp_path / "array.npy"
    other = tmp_path / "other.csv"
    other.write_text("1,2,3")
    cases: list[tuple[list[Path], Any]] = [
        ([source], {"a": 1}), ([source], {"a": 2}), ([source, other], {"a": 2}), ([source], {"a": 2}),
        ([other], {"a": 2}),
    ]  # fmt: skip
    for times, (sources, settings) in enumerate(cases, 1):
        derived_array(path, sources, settings, build)
        assert build.times == times


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "header", "no record", "damaged record"])
def test_damaged_file_is_made_anew(
    tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    build, path = Builder(source), tmp_path / "array.npy"
    derived_array(path, [source], None, build)
    whole, record = path.read_bytes(), tmp_path / "array.npy.sources.json"
    if damage == "no record":
        record.unlink()
    elif damage == "damaged record":
        record.write_text(record.read_text()[:20])
    else:
        content = {
            "truncated": whole[:-5], "empty": b"", "foreign": b"x" * len(whole),
            "header": whole.replace(b"}", b"{"),
        }[damage]  # fmt: skip
        path.write_bytes(content)
    np.testing.assert_array_equal(derived_array(path, [source], None, build), [1, 2, 3])
    assert build.times == 2
    assert len(caplog.messages) == 1


def test_building_that_fails_leaves_nothing(tmp_path: Path, source: Path) -> None:
    def fail() -> np.ndarray:
        raise InputError("one bad patch")

    with pytest.raises(InputError):
        derived_array(tmp_path / "new" / "array.npy", [source], None, fail)
    assert names(tmp_path / "new") == []


def test_full_disk_leaves_nothing(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Any, array: np.ndarray, **_: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array", full)
    path = tmp_path / "new" / "array.npy"
    with pytest.raises(OutputError, match=r"array\.npy cannot be written \(No space left on device\)"):
        derived_array(path, [source], None, Builder(source))
    assert names(path.parent) == []


def test_processes_that_need_the_same_array_make_it_once(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
import numpy as np
from softctm.storage.derived import content_digest, derived_array
folder = Path(sys.argv[1])
def build():
    with (folder / "built").open("a") as file:
        file.write("x")
    time.sleep(0.5)
    return np.arange(5)
for _ in range(3):
    assert derived_array(folder / "cache/a.npy", [], {"n": 5}, build).tolist() == [0, 1, 2, 3, 4]
    content_digest(folder / "cache/a.npy")
"""
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    assert (tmp_path / "built").read_text() == "x"
