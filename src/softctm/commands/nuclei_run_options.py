"""Options that the subcommands over a run of nuclei networks have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from softctm.commands.shared_options import add_run_folder
from softctm.datasets.nuclei import NUCLEI_DATASETS, open_nuclei
from softctm.errors import InputError, UsageError

if TYPE_CHECKING:
    from softctm.datasets.nuclei import NucleiDataset
    from softctm.training.nuclei.run import NucleiRun


def add_nuclei_run(parser: argparse.ArgumentParser, run: str = "the run's folder") -> None:
    """Add `--data` and `--run`."""
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="DIR",
        help=f"annotated nuclei ({', '.join(NUCLEI_DATASETS)}); of several, those without types teach where "
        "nuclei are only",
    )  # fmt: skip
    add_run_folder(parser, run)


def open_all(folders: list[Path]) -> list[tuple[str, NucleiDataset]]:
    """The data sets, each with its folder's name.

    Raises
    ------
    UsageError
        If two have the same name.
    InputError
        As `open_nuclei`.
    """
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError(f"--data: two folders are called {max(names, key=names.count)}; rename one")
    return [(name, open_nuclei(folder)) for name, folder in zip(names, folders, strict=True)]


def finished_run(args: argparse.Namespace) -> NucleiRun:
    """The run that `softctm train nuclei` left, on the data that it was trained on.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    from softctm.training.loop import LoopConfig
    from softctm.training.nuclei.config import nuclei_config_from_json
    from softctm.training.nuclei.run import NucleiRun
    from softctm.training.run_folder import CONFIG, read_run_file

    path = args.run_folder / CONFIG
    stored = read_run_file(path)
    try:
        preset, config, seed = stored["preset"], nuclei_config_from_json(stored["config"]), stored["seed"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a run of nuclei networks; {error} is missing, of another kind or outside its range"
        ) from None
    run = NucleiRun(args.run_folder, open_all(args.data), preset, config, LoopConfig(seed))
    if list(run.types) != list(stored["types"]):
        raise InputError(f"{path}: trained on types {', '.join(stored['types'])}, not on those of --data")
    return run
