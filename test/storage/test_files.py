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

from softctm.errors import InputError, OutputError
from softctm.storage.files import (
    files_below,
    prepare_folder,
    refuse_foreign_files,
    replacing_files,
    write_bytes_atomically,
    write_json_atomically,
)
from softctm.storage.text_files import read_csv_numbers, read_json, read_text


def test_a_field_that_csv_cannot_hold_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2\n" + "3" * 200_000 + ",4\n")
    with pytest.raises(InputError, match=r"a\.csv: line 2 is not CSV \(field larger than"):
        read_csv_numbers(tmp_path / "a.csv", ("x", "y"))


def test_json_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json_atomically(path, {"x": 1})
    write_json_atomically(path, {"µ": [1.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"µ": [1.5, None]}
    assert path.read_bytes().endswith(b"\n")
    assert os.listdir(tmp_path) == ["a.json"]


def test_new_files_of_a_folder_replace_the_old_ones_together_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"

    def fail() -> None:
        with replacing_files(folder, "model.json") as place:
            (place / "a.onnx").write_text("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert not folder.exists()
    for content in ("first", "second"):
        with replacing_files(folder, "model.json") as place:
            (place / "validation").mkdir()
            for name in ("model.json", "a.onnx", "validation/b.onnx"):
                (place / name).write_text(content)
        assert [path.read_text() for path in files_below(folder)] == [content] * 3
    with pytest.raises(ValueError, match="no"):
        fail()
    assert [path.read_text() for path in files_below(folder)] == ["second"] * 3
    assert sorted(path.name for path in folder.iterdir()) == ["a.onnx", "model.json", "validation"]


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
        from softctm.storage.files import write_json_atomically
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


# --- reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_of_every_usual_encoding(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    (tmp_path / "a").write_bytes((mark + '{"µ": [1]}').encode(encoding))
    assert read_text(tmp_path / "a") == '{"µ": [1]}'
    assert read_json(tmp_path / "a") == {"µ": [1]}


def test_the_line_of_a_fault_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n  "a": 1,\n  "b": 2;\n}')
    with pytest.raises(InputError) as caught:
        read_json(path, "a.json")
    assert str(caught.value) == (
        'a.json: is not valid JSON (line 3, "  "b": 2;": expecting \',\' delimiter); correct it'
    )
    # A line separator inside a text begins no line.
    path.write_text('{"a": "x\u2028y\x85z",\n"b": 1,\n"c" 2}')
    with pytest.raises(InputError, match=r'line 3, ""c" 2}": expecting'):
        read_json(path, "a.json")
    path.write_bytes(b"one\ntwo \xe9\xe8\n")
    with pytest.raises(
        InputError, match=r'a: line 2 is not UTF-8 text \("two \\xe9\\xe8"\); save it as UTF-8'
    ):
        read_text(path, "a")


def test_a_missing_file_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_json(tmp_path / "gone.json", remedy="make it with X")
    assert str(caught.value) == f"{tmp_path}/gone.json: is missing; make it with X"


def test_long_lines_are_quoted_around_the_fault(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[" + "1, " * 5000 + "x]")
    with pytest.raises(InputError) as caught:
        read_json(tmp_path / "a", "a")
    assert "1, x]" in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["", "\n", '{"a": ' + "9" * 5000 + "}", "[" * 100_000])
def test_what_the_parser_cannot_take_is_still_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(InputError, match=r"^a: is not valid JSON \(.*\); correct it$"):
        read_json(tmp_path / "a", "a")


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("A,b\n\n1, 2.5\n")
    assert read_csv_numbers(tmp_path / "a.csv", ("a", "b")) == [(3, [1.0, 2.5])]
    (tmp_path / "a.csv").write_text("1,2\na,b\n")
    with pytest.raises(InputError, match=r'a\.csv: line 2, "a,b", is not 2 numbers, a,b; correct it'):
        read_csv_numbers(tmp_path / "a.csv", ("a", "b"))


# --- files that are not ours -----------------------------------------------------------------------------


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    paths = [tmp_path / "none", tmp_path / "mine", tmp_path / "theirs"]

    def refuse(overwrite: bool = False) -> None:
        refuse_foreign_files(paths, "make", lambda path: path.name == "mine", overwrite)

    refuse()
    (tmp_path / "theirs").touch()
    with pytest.raises(
        OutputError, match=r"theirs is there already and `softctm make` did not make it; .*--overwrite"
    ):
        refuse()
    refuse(overwrite=True)


def test_files_below(tmp_path: Path) -> None:
    assert files_below(tmp_path / "none") == []
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    assert files_below(tmp_path) == [tmp_path / "a" / "b" / "c"]
    with pytest.raises(OutputError, match="is a file, not a folder"):
        files_below(tmp_path / "a" / "b" / "c")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_where_a_file_would_go_is_named_so(tmp_path: Path, overwrite: bool) -> None:
    with pytest.raises(OutputError, match="is a folder where a file would go; name a file"):
        refuse_foreign_files([tmp_path], "folds", lambda _: True, overwrite)
