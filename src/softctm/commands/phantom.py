"""`softctm phantom`: draw synthetic pairs with known cells."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.console import show
from softctm.phantom.sample_folders import LAYOUTS, draw_pairs


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to; made if it is not there")
    parser.add_argument("--pairs", type=int, default=3, metavar="N", help="how many pairs (default: 3)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same pairs (default: 0)")
    parser.add_argument(
        "--layout",
        choices=sorted(LAYOUTS),
        default="container",
        help="the container's input with the truth beside it, or an OCELOT release (default: container)",
    )


def run(args: argparse.Namespace) -> int:
    """Draw, write, and say where."""
    count = LAYOUTS[args.layout](args.out, draw_pairs(args.pairs, args.seed))
    show(f"{count} pairs drawn to {args.out}")
    return 0
