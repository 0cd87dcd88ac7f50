"""One way to read text, JSON and CSV: errors name the file and the line."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softctm.errors import InputError
from softctm.storage.names import repeated

_MAX_TEXT_BYTES = 256 << 20
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
        If it cannot be read, is not JSON (then with the line), or an object has two values of one name, of
        which JSON's readers take the last without a word.
    """
    label = str(path) if label is None else label

    def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            twice = repeated(name for name, _ in items)[0]
            raise InputError(f"{label}: has two values for {quoted(twice)} in one object; keep one")
        return found

    text = read_text(path, label, remedy)
    if not text.strip():
        raise InputError(f"{label}: is not valid JSON (it is empty); correct it")
    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]  # what JSON's reader counts; splitlines splits at more
        raise InputError(
            f"{label}: is not valid JSON (line {error.lineno}, {quoted(line, error.colno)}: "
            f"{error.msg[:1].lower()}{error.msg[1:]}); correct it"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = "a number is too long" if isinstance(error, ValueError) else "it is nested too deeply"
        raise InputError(f"{label}: is not valid JSON ({reason}); correct it") from None


def is_json_with(path: Path, *names: str) -> bool:
    """Whether a file holds a JSON object with all these names, by which a command knows its own files."""
    try:
        document = read_json(path)
    except InputError:
        return False
    return isinstance(document, dict) and document.keys() >= set(names)


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
        try:
            fields = [field.strip() for field in next(csv.reader([line]), [])]
        except csv.Error as error:
            raise InputError(f"{label}: line {number} is not CSV ({error}); correct it") from None
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
