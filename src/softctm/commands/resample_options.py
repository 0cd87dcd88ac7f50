"""The command-line option that says how many resamples intervals come from."""

from __future__ import annotations

import argparse

from softctm.errors import UsageError
from softctm.evaluation.bootstrap import RESAMPLES


def add_resamples(parser: argparse.ArgumentParser) -> None:
    """Add `--resamples`."""
    parser.add_argument(
        "--resamples",
        type=_number,
        default=RESAMPLES,
        metavar="N",
        help=f"bootstrap resamples of patients for the 95 %% intervals, 0 for none (default: {RESAMPLES})",
    )


def _number(text: str) -> int:
    """A single resample would make intervals without width."""
    number = int(text)
    if number < 0 or number == 1:
        raise UsageError(f"--resamples must be 0, or 2 or more, not {number}")
    return number
