"""`softctm predict`: find cells in paired patches and write the challenge's JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands.signals import interrupted_by_sigterm
from softctm.jobs.job_options import JobOptions
from softctm.jobs.pairs import run_job
from softctm.options import add_options, options_from
from softctm.terminal.console import ConsoleProgress, show


def configure(
    parser: argparse.ArgumentParser, input_dir: Path | None = None, output_dir: Path | None = None
) -> None:
    """Add the options of the job; without defaults for the folders, they must be given."""
    parser.add_argument(
        "--input",
        type=Path,
        default=input_dir,
        required=input_dir is None,
        metavar="DIR",
        help="patch folders, stacked images, an OCELOT release or Grand Challenge sockets"
        + (f" (default: {input_dir})" if input_dir else ""),
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=output_dir,
        required=output_dir is None,
        metavar="DIR",
        help="where cell_classification.json and run.json go"
        + (f" (default: {output_dir})" if output_dir else ""),
    )
    add_options(parser, JobOptions)


def job_options(args: argparse.Namespace) -> JobOptions:
    """The options that `configure` added, checked."""
    return options_from(JobOptions, args)


def run(args: argparse.Namespace) -> int:
    """Run the job; an interruption or SIGTERM still writes what is done."""
    with interrupted_by_sigterm():
        result = run_job(args.input, args.output, job_options(args), progress=ConsoleProgress())
    show(f"wrote {result.summary}")
    return 0
