"""`softctm evaluate nuclei`: score instance maps of nuclei against annotations."""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

from softctm.commands.report import is_own_page
from softctm.commands.resample_options import add_resamples
from softctm.commands.shared_options import add_overwrite
from softctm.datasets.nuclei import NUCLEI_DATASETS, open_nuclei
from softctm.errors import ScoreTooLowError, UsageError
from softctm.evaluation.nuclei.detection import RADIUS_PX
from softctm.evaluation.nuclei.scores import evaluate_nuclei
from softctm.evaluation.nuclei.summary import summary
from softctm.extras import require
from softctm.report.nuclei_tables import FILES, SUMMARY, write_nuclei_evaluation
from softctm.storage.files import prepare_folder, refuse_foreign_files
from softctm.storage.text_files import is_json_with
from softctm.terminal.console import show

_logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    layouts = ", ".join(NUCLEI_DATASETS)
    parser.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="DIR",
        help=f"folder that softctm nuclei wrote, or any other layout of instance maps ({layouts})",
    )
    parser.add_argument(
        "--truth", type=Path, required=True, metavar="DIR", help=f"annotated nuclei ({layouts})"
    )
    parser.add_argument(
        "--magnification",
        type=int,
        choices=sorted(RADIUS_PX, reverse=True),
        default=40,
        help="of the images: 40 for 0.25 µm per pixel, 20 for 0.5 (default: 40)",
    )
    parser.add_argument(
        "--merge",
        action="append",
        default=[],
        metavar="NEW=OLD,OLD",
        help="count types as one, in truth and predictions; may be given several times",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="write everything there as JSON and CSV")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write an HTML page with outlines of the nuclei"
    )
    add_resamples(parser)
    parser.add_argument(
        "--fail-under",
        type=float,
        metavar="SCORE",
        help=f"exit with code {ScoreTooLowError.exit_code} if bPQ is below this",
    )
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print, write, and judge."""
    if args.fail_under is not None and not 0 <= args.fail_under <= 1:
        raise UsageError(f"--fail-under must lie in 0 … 1, not {args.fail_under}")
    if args.report:
        require("jinja2", "markupsafe")
    merged = merged_types(args.merge)
    truth, predictions = open_nuclei(args.truth), open_nuclei(args.predictions)
    _prepare(args)
    evaluation = evaluate_nuclei(
        truth,
        predictions,
        name=args.predictions.resolve().name,
        magnification=args.magnification,
        merged=merged,
        resamples=args.resamples,
    )
    if apart := evaluation.types_apart:
        _logger.warning(
            "truth (%s) and predictions (%s) have no type in common, so that scores by type say nothing; "
            "give --merge NEW=OLD,OLD where two names mean the same",
            *map(", ".join, apart),
        )
    show("\n".join(summary(evaluation)), is_result=not (args.output or args.report))
    if args.output:
        write_nuclei_evaluation(evaluation, args.output)
        show(f"written to {args.output}")
    if args.report:
        from softctm.report.nuclei_page import write_nuclei_report

        write_nuclei_report(evaluation, truth, predictions, args.report)
        show(f"report: {args.report}")
    score = evaluation.overall.figures["bpq"].value
    if args.fail_under is not None and not score >= args.fail_under:
        shown = "it is undefined" if math.isnan(score) else f"{score:.4f}"
        raise ScoreTooLowError(f"bPQ is below the demanded {args.fail_under:g}: {shown}")
    return 0


def _prepare(args: argparse.Namespace) -> None:
    """Make the output folders, and stop before files of another program would be replaced."""
    if args.output:
        prepare_folder(args.output)
        tables = [args.output / name for name in FILES]
        is_own = is_json_with(args.output / SUMMARY, "overall", "over_organs", "images")
        refuse_foreign_files(tables, "evaluate nuclei", lambda path: is_own, args.overwrite)
    if args.report:
        prepare_folder(args.report.parent)
        refuse_foreign_files([args.report], "evaluate nuclei", is_own_page, args.overwrite)


def merged_types(options: list[str]) -> dict[str, str]:
    """Type → what it is counted as, of options `NEW=OLD,OLD`.

    Raises
    ------
    UsageError
        If one is malformed, or a type is merged twice.
    """
    merged: dict[str, str] = {}
    for option in options:
        new, separator, old = option.partition("=")
        names = [name.strip() for name in old.split(",")]
        if not separator or not new.strip() or not all(names):
            raise UsageError(f"--merge takes NEW=OLD,OLD, not {option!r}")
        for name in names:
            if name in merged:
                raise UsageError(f"--merge: {name} is merged twice; name it once")
            merged[name] = new.strip()
    return merged
