"""Write a file so that at any moment there is the old one, the whole new one, or none."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from softctm.errors import OutputError


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary file in the same folder, flush it to the disk, and rename it.

    Raises
    ------
    OutputError
        If the folder cannot be written to; the old file, if any, is untouched.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=".softctm-", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # Temporary files are private; the result is as readable as any file that the user creates.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
        _flush_folder(path.parent)
    except OSError as error:
        too_long = error.errno == errno.ENAMETOOLONG
        remedy = "shorten its name" if too_long else "make room, or choose another output folder"
        raise OutputError(f"{path} cannot be written ({error.strerror}); {remedy}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


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
