"""What the folder of any training holds: its configuration, and which source began it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from softctm.errors import InputError, TrainingError, UsageError
from softctm.model import Model, load_model
from softctm.model.manifest import Manifest
from softctm.model.network_file import MANIFEST
from softctm.storage.files import prepare_folder, write_json_atomically
from softctm.storage.text_files import read_json

CONFIG = "config.json"
FOLDS = "folds.json"
NETWORK = "network.safetensors"
"""Of one network's folder: the weights, once it is trained."""

_COMMIT = "commit"
LICENSES, ATTRIBUTIONS = "licenses", "attributions"
"""Where a configuration says whose weights and data a run began with."""

_SHOWN = 3
"""How many differing settings a message names."""


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


def model_or_run(folder: Path, wanted: str, *tasks: str) -> tuple[Model | None, Path]:
    """What `--start` names: a model, or None where it is a run; and the file that says what was trained.

    Parameters
    ----------
    folder : Path
    wanted : str
        What it should be, for messages.
    *tasks : str
        Those of a model that fits.

    Raises
    ------
    InputError
        If the folder is not there.
    ModelError
        If the model cannot be loaded, or is of another task.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is not there; --start takes {wanted}")
    if not (folder / MANIFEST).exists():
        return None, folder / CONFIG
    return load_model(folder).of_task(*tasks, remedy=f"--start takes {wanted}"), folder / MANIFEST


def is_begun(folder: Path) -> bool:
    """Whether the folder is a run's already; what only new networks need is not asked for again."""
    return (folder / CONFIG).exists()


def keep_config(
    folder: Path, document: Mapping[str, Any], today: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> None:
    """Write the configuration into a new folder, or check that it is that of the one that is there.

    Parameters
    ----------
    folder : Path
    document : mapping
        The configuration; the commit, licenses and attributions in it are kept and not compared.
    today : callable
        (configuration) → the same in today's names, with settings that are newer at their defaults.

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
    wanted = json.loads(json.dumps(document))
    if path.exists():
        before, now = _flat(today(read_run_file(path))), _flat(today(wanted))
        names = sorted(
            name
            for name in before.keys() | now.keys()
            if name != _COMMIT and name.rpartition(".")[2] not in (LICENSES, ATTRIBUTIONS)
        )
        if differing := [name for name in names if before.get(name) != now.get(name)]:
            more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
            raise TrainingError(
                f"{path}: of a run with another {', '.join(differing[:_SHOWN])}{more}; "
                "choose another --run folder"
            )
        return
    prepare_folder(folder)
    # At once or not at all: other folds may be starting in other processes.
    write_json_atomically(path, wanted, indent=1)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested mappings as one, with names such as `cells.optimizer.epochs`."""
    if not isinstance(value, dict):
        return {name: value}
    prefix = f"{name}." if name else ""
    return {path: inner for key, part in value.items() for path, inner in _flat(part, prefix + key).items()}


def rights_of(manifest: Manifest) -> dict[str, list[str]]:
    """What a configuration says of a model that a run begins with."""
    return {LICENSES: list(manifest.licenses), ATTRIBUTIONS: list(manifest.attributions)}


def inherited(
    config: Mapping[str, Any], licenses: Sequence[str] = (), attributions: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Licenses and attributions of all that a run's networks began with, after some of its own, each once.

    Parameters
    ----------
    config : mapping
        The run's config.json.
    licenses, attributions : sequence of str
        The run's own.
    """
    licenses = [*licenses, *config.get(LICENSES, ())]
    attributions = [*attributions, *config.get(ATTRIBUTIONS, ())]
    for value in config.values():
        if isinstance(value, Mapping):
            licenses, attributions = inherited(value, licenses, attributions)
    return list(dict.fromkeys(licenses)), list(dict.fromkeys(attributions))


def check_fold_count(path: Path, own: int | None, wanted: int | None) -> None:
    """Make sure that a run has as many folds as were asked for, if any were.

    Parameters
    ----------
    path : Path
        Its `folds.json`.
    own, wanted : int or None
        How many it has, and how many were asked for.

    Raises
    ------
    TrainingError
        If it has not.
    """
    if wanted is not None and wanted != own:
        raise TrainingError(
            f"{path}: has {own} folds, not the {wanted} of --folds; leave the option out, or choose another "
            "--run folder"
        )


def check_fold(fold: int | None, folds: Collection[int]) -> None:
    """Make sure that a fold can be held out; None holds out nothing.

    Parameters
    ----------
    fold : int or None
    folds : collection of int
        The fold of everything that there is.

    Raises
    ------
    UsageError
        If there is no such fold, or nothing is left to learn from.
    """
    if fold is None:
        return
    if fold not in folds:
        raise UsageError(f"--fold {fold}: there are folds {min(folds)} to {max(folds)}")
    if set(folds) == {fold}:
        raise UsageError(
            f"--fold {fold}: holds out all images, so that nothing is left to learn from; train with "
            "--all-images"
        )


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
