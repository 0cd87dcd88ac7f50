"""The `softctm` command: one subcommand a module of `softctm.commands`, imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from softctm import __version__
from softctm.errors import SoftCTMError

COMMANDS = {
    "predict": "find cells in paired patches and write the challenge's JSON",
    "serve": "answer Grand Challenge's invoke calls, with networks loaded once",
    "phantom": "draw made-up H&E-like pairs with known cells",
    "folds": "split an OCELOT release into folds by patient",
    "train": "train tissue and cell networks",
    "export": "turn trained networks into a model folder",
    "quantize": "make an 8-bit version of a model, for processors",
    "validate": "score stored networks out of fold",
    "evaluate": "score predictions against annotations",
    "report": "make a self-contained HTML page of predictions",
}
"""Name → help. `softctm.commands.<name>` has `configure(parser)` and `run(args) -> exit code`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code; an expected error becomes one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="softctm", description="Find and name cells in H&E tissue.")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"softctm {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    called = next((word for word in argv if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == called:
            module = importlib.import_module(f"softctm.commands.{name}")
            module.configure(subparser)
            subparser.set_defaults(run=module.run)
            # Also after the subcommand; without a default, so that it does not undo the one before it.
            subparser.add_argument(
                "--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks"
            )
    args = parser.parse_args(argv)
    return run_reporting_errors(args)


def run_reporting_errors(args: argparse.Namespace) -> int:
    """Call `args.run(args)`; turn a `SoftCTMError` into its one line and exit code, unless `args.debug`."""
    try:
        return int(args.run(args))
    except SoftCTMError as error:
        if args.debug:
            raise
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader went away (`softctm … | head`): nothing to report, and nobody to report it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
