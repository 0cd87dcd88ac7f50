"""`softctm export nuclei`: a finished run as a model folder."""

from __future__ import annotations

import argparse

from softctm.commands.model_folder import add_model_folder, new_model
from softctm.commands.nuclei_run_options import add_nuclei_run, finished_run
from softctm.extras import require_extra
from softctm.terminal.console import show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm export nuclei`."""
    add_nuclei_run(parser, "a finished run")
    add_model_folder(parser)
    parser.add_argument("--name", required=True, help="the model's name")
    parser.add_argument(
        "--size", type=int, default=1024, help="pixels per side of the fields it will see (default: 1024)"
    )
    parser.add_argument(
        "--license", action="append", required=True, metavar="TEXT",
        help="of the weights, which follows from the data's (may be repeated)",
    )  # fmt: skip
    parser.add_argument(
        "--attribution", action="append", default=[], metavar="TEXT",
        help="whose data and weights it was made from (may be repeated)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Export every network of the run."""
    require_extra("train")
    from softctm.jobs.nuclei.export import export_nuclei

    with new_model(args, "export nuclei", "nuclei") as folder:
        manifest = export_nuclei(
            finished_run(args), folder, args.name, args.size, args.license, args.attribution
        )
    difference = manifest.training["largest_difference_from_pytorch"]
    show(f"{args.output}: largest difference from PyTorch {difference:.1g} of a map's largest value")
    return 0
