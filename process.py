"""The container's entry: find the cells of every pair in /input and write them to /output."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # works from a clone without installation

from softctm.cli import run_reporting_errors
from softctm.commands import predict

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Find tumor cells and other cells in pairs of H&E patches.")
    predict.configure(parser, input_dir=Path("/input"), output_dir=Path("/output"))
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=predict.run)
    sys.exit(run_reporting_errors(parser.parse_args()))
