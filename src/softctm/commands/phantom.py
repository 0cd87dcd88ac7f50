"""`softctm phantom`: draw synthetic pairs with known cells."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands.shared_options import add_overwrite, seed
from softctm.phantom.sample_folders import LAYOUTS, draw_pairs, drawn_files
from softctm.progress import counted
from softctm.storage.files import files_below, refuse_foreign_files
from softctm.terminal.console import show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to; made if it is not there")
    parser.add_argument("--pairs", type=int, default=3, metavar="N", help="how many pairs (default: 3)")
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="S", help="same seed, same pairs (default: 0)"
    )
    parser.add_argument(
        "--layout",
        choices=sorted(LAYOUTS),
        default="container",
        help="the container's input with the truth beside it, or an OCELOT release (default: container)",
    )
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Draw, write, and say where; what an earlier run drew there is removed first."""
    pairs = draw_pairs(args.pairs, args.seed)
    own = drawn_files(args.out)
    refuse_foreign_files(files_below(args.out), "phantom", set(own).__contains__, args.overwrite)
    for path in reversed(own):  # metadata.json, by which they are known, last
        path.unlink()
    count = LAYOUTS[args.layout](args.out, pairs)
    show(f"{counted(count, 'pair')} drawn to {args.out}")
    return 0
