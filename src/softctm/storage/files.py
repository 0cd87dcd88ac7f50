"""One way to read text, JSON and CSV; files written so that there is the old one, the new one, or none."""

from __future__ import annotations

import codecs
import contextlib
import csv
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from softctm.errors import InputError, OutputError

_MAX_TEXT_BYTES = 256 << 20
_TEMPORARY = ".softctm-"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path, label: str | None = None, remedy: str = "check it") -> str:
    """Read a text file: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Parameters
    ----------
    path : Path
    label : str, optional
        The file as messages call it; by default its path.
    remedy : str
        What to do where the file is missing.

    Raises
    ------
    InputError
        If it is missing, unreadable, absurdly large, or in another encoding; then with the line.
    """
    label = str(path) if label is None else label
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_TEXT_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{label}: is missing; {remedy}") from None
    except OSError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror}); check it") from None
    if len(data) > _MAX_TEXT_BYTES:
        raise InputError(f"{label}: is larger than {_MAX_TEXT_BYTES >> 20} MB; give the right file")
    try:
        return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{label}: line {line} is not UTF-8 text ({_quoted_bytes(data, error.start)}); save it as UTF-8"
        ) from None


def read_json(path: Path, label: str | None = None, remedy: str = "check it") -> Any:
    """Read a JSON file; see `read_text` for parameters and encodings.

    Raises
    ------
    InputError
        If it cannot be read or is not JSON; then with the line.
    """
    label = str(path) if label is None else label
    text = read_text(path, label, remedy)
    if not text.strip():
        raise InputError(f"{label}: is not valid JSON (it is empty); correct it")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1] if error.lineno <= len(text.splitlines()) else ""
        raise InputError(
            f"{label}: is not valid JSON (line {error.lineno}, {quoted(line, error.colno)}: "
            f"{error.msg[:1].lower()}{error.msg[1:]}); correct it"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = "a number is too long" if isinstance(error, ValueError) else "it is nested too deeply"
        raise InputError(f"{label}: is not valid JSON ({reason}); correct it") from None


def read_csv_numbers(
    path: Path, columns: Sequence[str], label: str | None = None
) -> list[tuple[int, list[float]]]:
    """Read a CSV file of numbers; see `read_text` for encodings.

    Blank lines are passed over, and so is a first line that repeats the columns' names.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        Names of the columns, in order.

    Returns
    -------
    list of (int, list of float)
        Number of the line, counted from 1, and its values.

    Raises
    ------
    InputError
        If the file cannot be read, or a line does not hold one number for each column; it is quoted.
    """
    label = str(path) if label is None else label
    rows = []
    is_first = True
    for number, line in enumerate(read_text(path, label).splitlines(), 1):
        fields = [field.strip() for field in next(csv.reader([line]), [])]
        if not any(fields):
            continue
        header, is_first = is_first and [field.lower() for field in fields] == list(columns), False
        if header:
            continue
        try:
            values = [float(field) for field in fields]
        except ValueError:
            values = []
        if len(values) != len(columns):
            raise InputError(
                f"{label}: line {number}, {quoted(line)}, is not {len(columns)} numbers, "
                f"{','.join(columns)}; correct it"
            )
        rows.append((number, values))
    return rows


def quoted(text: str, column: int = 1) -> str:
    """A line for a message: in quotes, short, the part around `column` (counted from 1)."""
    start = max(0, column - 30)
    part = text[start : start + 60]
    before, after = "…" if start else "", "…" if start + 60 < len(text) else ""
    return f'"{before}{"".join(c if c.isprintable() else "?" for c in part)}{after}"'


def _quoted_bytes(data: bytes, place: int) -> str:
    """The line around a byte that is not UTF-8."""
    start = data.rfind(b"\n", 0, place) + 1
    line = data[start : place + 40].splitlines()[0]
    return quoted(line.decode("ascii", errors="backslashreplace"))


def refuse_foreign_files(
    files: Iterable[Path], command: str, is_ours: Callable[[Path], bool], overwrite: bool = False
) -> None:
    """Stop before a command would replace, or write among, files that it did not make.

    Parameters
    ----------
    files : iterable of Path
        Files that would be replaced; where the command fills a folder of its own, all that lie there. Those
        that do not exist do not matter.
    command : str
        Its name, for the message.
    is_ours : callable
        Whether an existing file was made by this command.
    overwrite : bool
        The user's `--overwrite`: then nothing is refused.

    Raises
    ------
    OutputError
        At the first file that is not the command's own.
    """
    for path in files:
        if not overwrite and path.exists() and not is_ours(path):
            raise OutputError(
                f"{path} is there already and `softctm {command}` did not make it; choose another place, or "
                "--overwrite where it may be replaced"
            )


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and below, sorted; none where it does not exist.

    Raises
    ------
    OutputError
        If `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder; choose another output folder")
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


class AtomicFile:
    """A file that is written piece by piece and appears under its name when it is whole.

    It is written as a temporary file in the same folder. Leaving the `with` block flushes it to the disk and
    renames it; leaving by an exception removes it, and the old file, if any, is untouched.

    Raises
    ------
    OutputError
        If it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._temporary = path, ""

    def __enter__(self) -> BinaryIO:
        with output_errors(self._path):
            handle, self._temporary = tempfile.mkstemp(
                prefix=_TEMPORARY, suffix=".tmp", dir=self._path.parent
            )
            os.close(handle)
            self._file = open(self._temporary, "w+b")  # by name: TIFF writers look for it
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with output_errors(self._path), self._file:
                if kind is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if kind is None:
                with output_errors(self._path):
                    # Temporary files are private; the result is as readable as any file of the user's.
                    os.chmod(self._temporary, 0o666 & ~_umask())
                    os.replace(self._temporary, self._path)
                    _flush_folder(self._path.parent)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of what writes to `path` into an `OutputError` that names it."""
    try:
        yield
    except OSError as error:
        too_long = error.errno == errno.ENAMETOOLONG
        remedy = "shorten its name" if too_long else "make room, or choose another output folder"
        raise OutputError(f"{path} cannot be written ({error.strerror}); {remedy}") from error


def remove_left_overs(folder: Path) -> None:
    """Remove temporary files of processes that were killed; nobody else may be writing there."""
    for file in folder.glob(f"{_TEMPORARY}*.tmp"):
        with contextlib.suppress(OSError):
            file.unlink()


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary file in the same folder, flush it to the disk, and rename it.

    Raises
    ------
    OutputError
        If the folder cannot be written to; the old file, if any, is untouched.
    """
    with AtomicFile(path) as file, output_errors(path):
        file.write(data)


def write_json_atomically(path: Path, document: Any, indent: int | None = None) -> None:
    """Write `document` as UTF-8 JSON with a final newline; see `write_bytes_atomically`.

    Raises
    ------
    OutputError
        If it cannot be written.
    ValueError
        If `document` holds NaN or infinity, which JSON does not know.
    """
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    # Names that are no valid Unicode (undecodable file names) are still written, escaped.
    write_bytes_atomically(path, text.encode("utf-8", errors="backslashreplace") + b"\n")


def prepare_folder(folder: Path) -> None:
    """Create an output folder and make sure that it can be written to.

    Raises
    ------
    OutputError
        If it cannot; better now than after the computation.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        remedy = "a file is in the way, remove it" if in_the_way else f"let user {os.geteuid()} write there"
        raise OutputError(
            f"output folder {folder} cannot be written to ({error.strerror}); "
            f"{remedy} or choose another output folder"
        ) from error


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    """Make the renaming itself durable, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
