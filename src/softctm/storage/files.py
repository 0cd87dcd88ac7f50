"""Files written so that there is the old one, the new one, or none; nothing foreign is replaced."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from softctm.errors import OutputError

_TEMPORARY = ".softctm-"

_UMASK = os.umask(0)
os.umask(_UMASK)
# It can only be read by setting it: done once, for two threads at a time could leave it at 0.


def sha256_of(path: Path) -> str:
    """Lower-case hexadecimal digest of a file; OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        At the first file that is not the command's own, or is a folder, which nothing replaces.
    """
    for path in files:
        if path.is_dir():
            raise OutputError(
                f"{path} is a folder where a file would go; name a file, or choose another place"
            )
        if not overwrite and path.exists() and not is_ours(path):
            raise OutputError(
                f"{path} is there already and `softctm {command}` did not make it; choose another place, or "
                "--overwrite where it may be replaced"
            )


def beginning_of(path: Path) -> bytes:
    """The first MB of a file, by which a command knows its own; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""


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


@contextlib.contextmanager
def replacing_files(folder: Path, last: str) -> Iterator[Path]:
    """Collect a folder's new files in another one, and move them there once all are whole.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    last : str
        Name of the file that names the others: it is moved after them.

    Yields
    ------
    Path
        The folder to write to. If the block fails, what it wrote goes, and `folder` stays as it is.

    Raises
    ------
    OutputError
        If `folder` cannot be written to.
    """
    is_new = not folder.exists()
    prepare_folder(folder)
    with contextlib.ExitStack() as stack:
        if is_new:
            stack.callback(_remove_if_empty, folder)
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder)))
        yield place
        with output_errors(folder):
            for file in sorted(files_below(place), key=lambda path: path.name == last):
                target = folder / file.relative_to(place)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)


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
                    os.chmod(self._temporary, 0o666 & ~_UMASK)
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
    remove_where_possible(folder.glob(f"{_TEMPORARY}*.tmp"))


def remove_where_possible(files: Iterable[Path]) -> None:
    """Remove files; one that is not there, or cannot be removed, stays as it is."""
    for file in files:
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


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _flush_folder(folder: Path) -> None:
    """Make the renaming itself durable, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
