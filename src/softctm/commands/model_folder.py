"""What the commands share that write a model folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from softctm.model.network_file import MANIFEST
from softctm.storage.files import files_below, refuse_foreign_files, replacing_files
from softctm.storage.text_files import read_json


def add_model_folder(parser: argparse.ArgumentParser) -> None:
    """Add `--output` and `--overwrite`."""
    parser.add_argument("--output", type=Path, required=True, help="the model folder to write")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write into a folder that holds something else than a model for the same task",
    )


@contextmanager
def new_model(args: argparse.Namespace, command: str, *tasks: str) -> Iterator[Path]:
    """A folder to write a model to, which becomes `--output` when the block is through.

    Parameters
    ----------
    args : argparse.Namespace
        With what `add_model_folder` adds.
    command : str
        Its name, for the message.
    tasks : str
        A model for one of them may be replaced.

    Raises
    ------
    OutputError
        If `--output` holds anything else and `--overwrite` is not given, or cannot be written to.
    InputError
        If its `model.json` is none.
    """
    manifest = args.output / MANIFEST
    document = read_json(manifest) if manifest.is_file() and not args.overwrite else {}
    is_ours = isinstance(document, dict) and document.get("task") in tasks
    refuse_foreign_files(files_below(args.output), command, lambda _: is_ours, args.overwrite)
    with replacing_files(args.output, MANIFEST) as place:
        yield place
