"""SimpleITK, where it is needed: what it must be spared, for it would end the whole process."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from softctm.errors import InputError


def simpleitk() -> Any:
    """The library; imported late, for it is slow to import and few inputs need it."""
    return importlib.import_module("SimpleITK")


def path_for_simpleitk(path: Path, label: str) -> str:
    """A path as SimpleITK takes it.

    Parameters
    ----------
    path : Path
    label : str
        The file as messages call it.

    Raises
    ------
    InputError
        If it is not UTF-8, which Linux allows: SimpleITK would abort the process, results and all.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{label}: its name, or a folder's above it, is not UTF-8, and files of this kind cannot be read "
            "so; rename it"
        ) from error
    return str(path)
