"""What the folder of any training holds: its configuration, and which source began it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from softctm.errors import InputError, TrainingError
from softctm.storage.files import prepare_folder, write_json_atomically
from softctm.storage.text_files import read_json

CONFIG = "config.json"
FOLDS = "folds.json"
NETWORK = "network.safetensors"
"""Of one network's folder: the weights, once it is trained."""


def read_run_file(path: Path) -> dict[str, Any]:
    """A JSON file of a run's folder, such as its `config.json`.

    Raises
    ------
    InputError
        If it cannot be read, or is not a mapping.
    """
    remedy = f"is {path.parent} a run's folder?"
    document = read_json(path, remedy=remedy)
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds a list or a single value; {remedy}")
    return document


def keep_config(folder: Path, document: dict[str, Any]) -> None:
    """Write the configuration into a new folder, or check that it is that of the one that is there.

    Raises
    ------
    TrainingError
        If the folder is of another configuration.
    InputError
        If its configuration cannot be read.
    OutputError
        If it cannot be written to.
    """
    path = folder / CONFIG
    document = json.loads(json.dumps(document))
    if path.exists():
        if read_run_file(path) != document:
            raise TrainingError(
                f"{path}: this folder is of another configuration; choose another --run folder"
            )
        return
    prepare_folder(folder)
    write_json_atomically(path, document, indent=1)


def source_commit() -> str:
    """The commit of the source that is running, or "unknown" outside a checkout."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()
