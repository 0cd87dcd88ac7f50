"""Arrays on disk that are made from other files: each knows its sources and is made anew when one changes.

Beside `NAME.npy` lies `NAME.npy.sources.json`: path, size and modification time of every source file, the
settings, and size and SHA-256 of the array itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.errors import OutputError
from softctm.storage.files import write_json_atomically
from softctm.storage.lock import locked

logger = logging.getLogger(__name__)


def derived_array(
    path: Path, sources: Iterable[Path], settings: Any, build: Callable[[], NDArray[Any]]
) -> NDArray[Any]:
    """Memory-map the array at `path`, making it first where it is absent, outdated or damaged.

    Parameters
    ----------
    path : Path
        The `.npy` file. A file that is half-written is never seen.
    sources : iterable of Path
        Every file that `build` reads.
    settings : object
        Whatever else the array depends on, as JSON.
    build : callable
        Makes the array; no other process makes one in this folder meanwhile.

    Raises
    ------
    OutputError
        If the array cannot be written; no part of it is left behind.
    """
    made_from = _described(sources, settings)
    found = _usable(path, made_from)
    if isinstance(found, str):
        with _alone_in(path.parent):
            found = _usable(path, made_from)  # another process may have made it while this one waited
            if isinstance(found, str):
                if found:
                    logger.warning("%s is made anew: %s", path, found)
                array = build()
                _write(path, array)
                digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
                content = {"size": path.stat().st_size, "sha256": digest}
                write_json_atomically(_record(path), {**made_from, "content": content})
                found = _opened(path)
    return found


def _usable(path: Path, made_from: dict[str, Any]) -> NDArray[Any] | str:
    """The array, or why it cannot be used: "" where there is none yet."""
    reason = _why_outdated(path, made_from)
    if reason is not None:
        return reason
    try:
        return _opened(path)
    except Exception:  # NumPy raises several unrelated kinds
        return "it is damaged"


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time make arrays in a folder: those of torchrun share it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to ({error.strerror}); choose another place") from None
    with locked(folder / ".lock"):
        yield


def content_digest(path: Path) -> str:
    """SHA-256 of the values of an array that `derived_array` made: the same wherever the sources lie."""
    return str(json.loads(_record(path).read_text(encoding="utf-8"))["content"]["sha256"])


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sources.json")


def _opened(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def _described(sources: Iterable[Path], settings: Any) -> dict[str, Any]:
    files = []
    for source in sources:
        try:
            state = source.stat()
            files.append([str(source.absolute()), state.st_size, state.st_mtime_ns])
        except OSError:
            files.append([str(source.absolute()), None, None])  # whoever reads it says what is wrong
    return {"files": files, "settings": json.loads(json.dumps(settings))}


def _why_outdated(path: Path, made_from: dict[str, Any]) -> str | None:
    """None where the array can be used, "" where there is none yet, else the reason."""
    if not path.exists():
        return ""
    try:
        record = json.loads(_record(path).read_text(encoding="utf-8"))
        size, files = record["content"]["size"], [list(entry) for entry in record["files"]]
        settings = record["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return "it does not say what it was made from"
    if path.stat().st_size != size:
        return "it is damaged"
    if changed := [str(entry[0]) for entry in made_from["files"] if entry not in files]:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{changed[0]}{others} changed since"
    if files != made_from["files"] or settings != made_from["settings"]:
        return "what it was made from changed since"
    return None


def _write(path: Path, array: NDArray[Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        # Without its record, an array is not taken for a whole one.
        _record(path).unlink(missing_ok=True)
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror or error}); make room") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
