"""`softctm nuclei`: find, outline and name the nuclei of images."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands.signals import interrupted_by_sigterm
from softctm.jobs.nuclei.images import NucleiOptions, run_nuclei_job
from softctm.options import add_options, options_from
from softctm.terminal.console import ConsoleProgress, show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm nuclei`."""
    parser.add_argument(
        "input",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="images of any size (JPEG, PNG, TIFF, BMP), or folders of them",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="where run.json goes, and NAME/nuclei.geojson, nuclei.csv and instances.tif of each image",
    )
    add_options(parser, NucleiOptions)


def run(args: argparse.Namespace) -> int:
    """Run the job; an interruption or SIGTERM keeps what is done."""
    with interrupted_by_sigterm():
        result = run_nuclei_job(
            args.input, args.output, options_from(NucleiOptions, args), progress=ConsoleProgress()
        )
    show(f"wrote {result.summary}")
    return 0
