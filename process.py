"""The container's entry: find the cells of every pair in /input and write them to /output."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # works from a clone without installation

from softctm.cli import add_log_options, run_program
from softctm.commands import predict


def make_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The options of `softctm predict`, with the container's folders."""
    parser = argparse.ArgumentParser(description="Find tumor cells and other cells in pairs of H&E patches.")
    predict.configure(parser, input_dir=Path("/input"), output_dir=Path("/output"))
    add_log_options(parser)
    parser.set_defaults(run=predict.run)
    return parser


if __name__ == "__main__":
    sys.exit(run_program(make_parser))
