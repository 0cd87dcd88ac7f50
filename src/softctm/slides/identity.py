"""What makes a slide this slide: path, size, time of change, and a hash of its beginning and end."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from softctm.errors import SlideError
from softctm.slides.result_folder import place_of

_SAMPLE = 2**16
"""Bytes hashed at the beginning and at the end of each file: headers and indexes lie there."""


def slide_identity(path: Path) -> dict[str, Any]:
    """Path, size (bytes), time of change (ns) and quick hash of a slide with all the files that belong to it.

    Raises
    ------
    SlideError
        If a file is missing or cannot be read.
    """
    digest, size, changed = hashlib.sha256(), 0, 0
    try:
        for file in files_of(path):
            status = file.stat()
            size, changed = size + status.st_size, max(changed, status.st_mtime_ns)
            digest.update(f"{file.name} {status.st_size}\n".encode("utf-8", "surrogateescape"))
            with file.open("rb") as content:
                digest.update(content.read(_SAMPLE))
                content.seek(max(0, status.st_size - _SAMPLE))
                digest.update(content.read(_SAMPLE))
    except OSError as error:
        raise SlideError(
            f"{path}: cannot be read ({error.strerror}); it is gone or not for this user"
        ) from error
    return {
        "path": str(place_of(path)),
        "bytes": size,
        "changed_ns": changed,
        "quick_sha256": digest.hexdigest(),
    }


def files_of(path: Path) -> list[Path]:
    """The files of a slide: itself, an MRXS slide's data, the DICOM files of a folder."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() == ".dcm")
    if (data := data_folder(path)) is not None:
        return [path, *sorted(file for file in data.iterdir() if file.is_file())]
    return [path]


def data_folder(path: Path) -> Path | None:
    """The folder that an MRXS slide's data lie in."""
    folder = path.with_suffix("")
    return folder if path.suffix.lower() == ".mrxs" and folder.is_dir() else None
