"""Files appear whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from softctm.errors import OutputError
from softctm.files import prepare_folder, write_bytes_atomically, write_json_atomically


def test_json_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json_atomically(path, {"x": 1})
    write_json_atomically(path, {"µ": [1.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"µ": [1.5, None]}
    assert path.read_bytes().endswith(b"\n")
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_result_has_the_users_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    write_bytes_atomically(tmp_path / "a", b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_nan_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    write_json_atomically(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_atomically(tmp_path / "a.json", float("nan"))
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_names_that_are_no_unicode_are_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"pair\xff")
    write_json_atomically(tmp_path / "a.json", [name])
    assert json.loads((tmp_path / "a.json").read_bytes()) == [name]


@pytest.mark.parametrize("name", ["n" * 255, "界" * 85], ids=["letters", "Chinese characters"])
def test_the_longest_name_that_a_folder_takes(tmp_path: Path, name: str) -> None:
    """The temporary file's name is no longer than the file's own."""
    write_bytes_atomically(tmp_path / name, b"x")
    assert os.listdir(tmp_path) == [name]


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written \(File name too long\); shorten its name"):
        write_bytes_atomically(tmp_path / ("n" * 256), b"x")
    assert os.listdir(tmp_path) == []


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.json" / "b").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"a\.json cannot be written"):
        write_json_atomically(tmp_path / "a.json", 1)
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        OutputError,
        match=r"output folder .*file/out cannot be written to \(Not a directory\); a file is in the way",
    ):
        prepare_folder(tmp_path / "file" / "out")


def test_killed_while_writing(tmp_path: Path) -> None:
    """A process that rewrites a file without pause is killed; each time there is one whole version."""
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from softctm.files import write_json_atomically
        number = 0
        while True:
            write_json_atomically(Path(sys.argv[1]), [number] * 200_000)
            number += 1
        """
    )
    path = tmp_path / "a.json"
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", code, path])
        seen = path.stat().st_mtime_ns if path.exists() else 0
        deadline = time.monotonic() + 60
        while (path.stat().st_mtime_ns if path.exists() else 0) == seen and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.wait()
        numbers = json.loads(path.read_text())
        assert len(numbers) == 200_000
        assert len(set(numbers)) == 1
