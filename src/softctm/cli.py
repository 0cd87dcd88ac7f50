"""The `softctm` command: one subcommand a module of `softctm.commands`, imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Callable, Sequence

from softctm import __version__
from softctm.terminal.console import LEVELS, check_stdout, log_shown
from softctm.terminal.streams import guarded_streams
from softctm.terminal.unexpected import as_expected

_logger = logging.getLogger(__name__)

COMMANDS = {
    "predict": "find cells in paired patches and write the challenge's JSON",
    "slides": "find cells, or nuclei, on whole slides: GeoJSON, tables, maps and pictures",
    "nuclei": "find, outline and classify the nuclei of images",
    "serve": "answer Grand Challenge's invoke calls, with networks loaded once",
    "phantom": "draw synthetic H&E-like pairs with known cells",
    "folds": "split an OCELOT release into folds by patient",
    "pretrain": "train a network on single images of other datasets, to start from",
    "train": "train tissue and cell networks",
    "train nuclei": "train networks that find nuclei",
    "train points": "train networks that outline the nucleus at a point",
    "export": "turn trained networks into a model folder",
    "export nuclei": "turn trained nuclei networks into a model folder",
    "import cellvit": "make a model folder of a published CellViT checkpoint",
    "quantize": "make an 8-bit version of a model, for processors",
    "validate": "score stored networks out of fold",
    "validate nuclei": "score a run's nuclei networks out of fold",
    "evaluate": "score predictions against annotations",
    "evaluate nuclei": "score instance maps of nuclei against annotations",
    "report": "make a self-contained HTML page of predictions",
}
"""Name → help. `softctm.commands.<name>` (_ for a space) has `configure(parser)` and `run(args) → exit code`.

A name of two words is a command and what it acts on; the command alone acts on cells.
"""

_CELLS_UNDERSTOOD = ("evaluate cells", "export cells", "validate cells")
"""What may be said in full; `train cells` is no such case, for `train` also takes `tissue` and `all`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code; an error becomes one line on stderr."""
    return run_program(_parser, _joined(sys.argv[1:] if argv is None else argv))


def run_program(
    make_parser: Callable[[Sequence[str]], argparse.ArgumentParser], argv: Sequence[str] | None = None
) -> int:
    """Parse the command line, show the log, run, and turn errors into their line and exit code.

    Parameters
    ----------
    make_parser : callable
        From the words of the command line to their parser, which sets `run`, `debug` and `log_level`.
    argv : sequence of str, optional
        By default the process's own.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    with guarded_streams(), log_shown() as log:
        log.tracebacks = "--debug" in argv
        try:
            args = _parse(make_parser(argv), argv)
            log.show_from("debug" if args.debug else args.log_level)
            log.tracebacks = args.debug
            return int(args.run(args))
        except KeyboardInterrupt:
            _logger.error("interrupted")
            return 130
        except Exception as error:
            expected = as_expected(error)
            _logger.error("%s", expected, exc_info=error)
            return expected.exit_code


def add_log_options(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """Add `--log-level` and `--debug`.

    Parameters
    ----------
    parser : ArgumentParser
    again : bool
        Whether a parser above this one has them too: then there is no default here to undo its value.
    """
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        default=argparse.SUPPRESS if again else "info",
        help="least important messages to show (default: info)",
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS if again else False,
        help="show all messages, and where errors come from (tracebacks)",
    )


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all subcommands, with the options of the one that is called."""
    parser = argparse.ArgumentParser(
        prog="softctm", description="Detect and classify cells and nuclei in H&E tissue."
    )
    add_log_options(parser)
    parser.add_argument("--version", action="version", version=f"softctm {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    called = next((word for word in argv if word in COMMANDS), None)
    for name, text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == called:
            module = importlib.import_module(f"softctm.commands.{name.replace(' ', '_')}")
            module.configure(subparser)
            subparser.set_defaults(run=module.run)
            add_log_options(subparser, again=True)
    return parser


def _joined(argv: Sequence[str]) -> list[str]:
    """The arguments, with a command and what it acts on as one word: `evaluate nuclei`, `evaluate cells`."""
    argv = list(argv)
    firsts = {name.split()[0] for name in COMMANDS}
    place = next((i for i, word in enumerate(argv) if word in firsts), len(argv))
    both = " ".join(argv[place : place + 2])
    if both in COMMANDS:
        argv[place : place + 2] = [both]
    elif both in _CELLS_UNDERSTOOD:
        del argv[place + 1]
    return argv


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse; where `--help` or `--version` cannot be printed, the program has not done what it should."""
    try:
        return parser.parse_args(argv)
    except SystemExit as end:
        if not end.code:
            check_stdout()
        raise
