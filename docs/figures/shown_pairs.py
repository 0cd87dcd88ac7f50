"""What the figures of real patches share: which pairs they show, and how they are saved."""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from softctm.datasets.ocelot import AnnotatedPair, load_release

ROOT = Path(__file__).resolve().parents[2]


def add_pairs(parser: argparse.ArgumentParser, output: str) -> None:
    """Add `--data`, `--pair`, and `--output`, by default a file of this name."""
    parser.add_argument("--data", type=Path, default=ROOT / "examples/ocelot", help="an OCELOT release")
    parser.add_argument("--pair", action="append", help="(may be repeated; default: the first two)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/images" / output)


def chosen_pairs(args: argparse.Namespace) -> list[AnnotatedPair]:
    """The pairs that the options name."""
    pairs = load_release(args.data)
    return [pair for pair in pairs if pair.id in args.pair] if args.pair else pairs[:2]


def save(figure: Figure, output: Path) -> None:
    """Write the figure and say where."""
    figure.savefig(output, dpi=95, pil_kwargs={"quality": 80} if output.suffix == ".jpg" else None)
    print(output)
