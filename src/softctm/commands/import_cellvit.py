"""`softctm import cellvit`: a model folder from weights that CellViT's authors published."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands.model_folder import add_model_folder, new_model
from softctm.extras import require_extra
from softctm.terminal.console import show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm import cellvit`."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT.pth",
        help="the published file of CellViT-256 or -SAM-B/L/H",
    )
    add_model_folder(parser)
    parser.add_argument(
        "--size", type=int, default=1024, help="pixels per side of the fields it will see (default: 1024)"
    )
    parser.add_argument(
        "--magnification",
        type=int,
        choices=(20, 40),
        help="of the images it was trained on (default: 20 if its name says x20, else 40)",
    )
    parser.add_argument("--license", metavar="TEXT", help="of the weights (default: as the authors state it)")


def run(args: argparse.Namespace) -> int:
    """Import the checkpoint and say what became of it."""
    require_extra("train")
    from softctm.jobs.cellvit_import import LICENSE, import_cellvit

    with new_model(args, "import cellvit", "nuclei") as folder:
        manifest = import_cellvit(
            args.checkpoint, folder, args.size, args.license or LICENSE, args.magnification
        )
    difference = manifest.training["largest_difference_from_pytorch"]
    show(
        f"{args.output}: {manifest.name} for fields of {args.size}² px at "
        f"{manifest.stages['nuclei'].input.mpp} µm per pixel; largest difference from PyTorch "
        f"{difference:.1g} of an output's largest value"
    )
    return 0
