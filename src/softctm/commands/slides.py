"""`softctm slides`: find cells, or nuclei, on whole slides."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands.signals import interrupted_by_sigterm
from softctm.jobs.slides.cohort import run_cohort
from softctm.jobs.slides.options import SlideOptions
from softctm.options import add_options, options_from
from softctm.terminal.console import ConsoleProgress, show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="slides, folders of slides, or CSV files with a column path and, where wanted, mpp and region",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="where one folder per slide and the tables go",
    )
    add_options(parser, SlideOptions)


def run(args: argparse.Namespace) -> int:
    """Run the job; an interruption leaves what is done, and the same call goes on with it."""
    with interrupted_by_sigterm():
        options = options_from(SlideOptions, args)
        result = run_cohort(args.inputs, args.output, options, progress=ConsoleProgress())
    show(f"wrote {result.summary}")
    return 0
