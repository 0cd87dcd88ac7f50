"""Options that several subcommands of training have in common."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_release(parser: argparse.ArgumentParser, what: str = "an OCELOT release") -> None:
    """Add `--data` and `--subset`: the pairs to work on."""
    parser.add_argument("--data", type=Path, required=True, help=what)
    parser.add_argument("--subset", default="train", help="of the release (default: train)")


def add_run_folder(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--run`: the folder of a training run."""
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/compact"),
        dest="run_folder",
        help=f"{what} (default: runs/compact)",
    )
