"""One run at a time in an output folder."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from softctm.storage.lock import locked

FILE_NAME = ".lock"


def output_lock(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder's lock.

    Raises
    ------
    OutputError
        If another process, here or on a machine that shares the folder, holds it; as `locked`.
    """
    return locked(
        folder / FILE_NAME,
        lambda holder: f"{folder}: {holder} is at work in it; wait for it, or choose another output folder",
    )
