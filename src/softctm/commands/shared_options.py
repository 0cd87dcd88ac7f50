"""Command-line options that several subcommands have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softctm.datasets.ocelot import AnnotatedPair


def add_release(parser: argparse.ArgumentParser, what: str = "an OCELOT release") -> None:
    """Add `--data`, `--dataset`, `--subset` and `--patient-key`: the pairs to work on."""
    from softctm.datasets.pair_datasets import DATASETS

    parser.add_argument("--data", type=Path, required=True, help=what)
    parser.add_argument(
        "--dataset", choices=sorted(DATASETS), default="ocelot", help="layout of --data (default: ocelot)"
    )
    parser.add_argument("--subset", default="train", help="of the release (default: train)")
    parser.add_argument(
        "--patient-key", default="", metavar="FIELD|PATTERN",
        help="what tells a pair's patient: a metadata field, such as patient_id, or a regular expression "
        "with one group, searched in slide_name (default: the first twelve characters of slide_name)",
    )  # fmt: skip


def load_pairs(args: argparse.Namespace) -> list[AnnotatedPair]:
    """The pairs that the options of `add_release` name; errors as `load_release` and `PatientKey`."""
    from softctm.datasets.pair_datasets import DATASETS
    from softctm.datasets.patients import PatientKey

    return DATASETS[args.dataset](args.data, args.subset, PatientKey(args.patient_key))


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add `--overwrite`: replace files that the command did not make."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also replace files that this command did not make (default: stop before anything is written)",
    )


def add_run_folder(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--run`: the folder of a training run."""
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/compact"),
        dest="run_folder",
        help=f"{what} (default: runs/compact)",
    )
