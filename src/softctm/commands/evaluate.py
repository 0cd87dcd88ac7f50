"""`softctm evaluate`: score predictions as the challenge does, and say where they fail."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from softctm.commands.resample_options import add_resamples
from softctm.commands.shared_options import add_overwrite
from softctm.commands.truth_options import add_truth_options, predictions_of, short_names, truth_of
from softctm.errors import ScoreTooLowError, UsageError
from softctm.evaluation.analysis import evaluate
from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.comparison import Comparison, compare
from softctm.evaluation.result import Evaluation
from softctm.evaluation.summary import challenge_number, ranking, summary
from softctm.evaluation.tissue import find_tissue_maps
from softctm.report.tables import (
    COMPARISON_FILES,
    EVALUATION_FILES,
    write_comparison,
    write_evaluation,
)
from softctm.storage.files import prepare_folder, refuse_foreign_files, remove_where_possible
from softctm.storage.text_files import is_json_with
from softctm.terminal.console import show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="cell_classification.json; two or more are compared with each other",
    )
    add_truth_options(parser)
    parser.add_argument(
        "--tissue",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="folder of predicted tissue maps (label PNGs or .npy probabilities), one for each FILE",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="write everything there as JSON and CSV")
    add_overwrite(parser)
    add_resamples(parser)
    parser.add_argument(
        "--fail-under",
        type=float,
        metavar="SCORE",
        help=f"exit with code {ScoreTooLowError.exit_code} if an mF1 is below this",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print, write, and compare with --fail-under."""
    names = short_names(args.predictions)
    _check(args)
    truth = truth_of(args)
    folders = args.tissue or [None] * len(names)
    inputs = [
        (name, predictions_of(path, len(truth)), find_tissue_maps(folder, truth) if folder else None)
        for name, path, folder in zip(names, args.predictions, folders, strict=True)
    ]
    if args.output:
        prepare_folder(args.output)
        _refuse_foreign(args.output, names, args.overwrite)
    evaluations = []
    for name, predictions, maps in inputs:
        evaluations.append(
            evaluate(predictions, truth, name=name, tissue_maps=maps, resamples=args.resamples)
        )
        for line in summary(evaluations[-1]):
            show(line, is_result=not args.output)
    comparison = None
    if len(evaluations) > 1 and not truth.can_be_resampled:
        show("no ranking: all pairs are of one patient, who says nothing about others")
    elif len(evaluations) > 1 and args.resamples:
        counts = [evaluation.pair_counts for evaluation in evaluations]
        comparison = compare(names, counts, Bootstrap(len(truth), args.resamples, unit_of=truth.units))
        for line in ranking(comparison):
            show(line, is_result=not args.output)
    if args.output:
        _write(evaluations, comparison, args.output)
    _check_scores(evaluations, args.fail_under)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse options outside their range before anything is read."""
    if args.fail_under is not None and not 0 <= args.fail_under <= 1:
        raise UsageError(f"--fail-under must lie in 0 … 1, not {args.fail_under}")
    if args.tissue and len(args.tissue) != len(args.predictions):
        raise UsageError(
            f"--tissue takes one folder for each predictions' file: {len(args.predictions)}, "
            f"not {len(args.tissue)}"
        )


def _folder(output: Path, name: str, is_alone: bool) -> Path:
    """One evaluation goes straight into the folder, several into a subfolder each."""
    return output if is_alone else output / name.replace("/", "-")


def _refuse_foreign(output: Path, names: Sequence[str], overwrite: bool) -> None:
    """Stop before tables of another program would be replaced."""
    is_alone = len(names) == 1
    places = [(_folder(output, name, is_alone), EVALUATION_FILES) for name in names]
    for folder, files in places if is_alone else [*places, (output, COMPARISON_FILES)]:
        if not _are_own(folder, files):
            refuse_foreign_files((folder / file for file in files), "evaluate", lambda _: False, overwrite)


def _are_own(folder: Path, files: Sequence[str]) -> bool:
    """Whether this command wrote an `evaluation.json` or `comparison.json`."""
    return is_json_with(folder / files[0], "mF1") or is_json_with(folder / files[0], "ranking")


def _write(evaluations: list[Evaluation], comparison: Comparison | None, folder: Path) -> None:
    """Write all, and remove what an earlier call wrote beside it about other predictions."""
    for files in (EVALUATION_FILES, COMPARISON_FILES):
        if _are_own(folder, files):
            remove_where_possible(folder / file for file in files)
    for evaluation in evaluations:
        own = _folder(folder, evaluation.name, len(evaluations) == 1)
        prepare_folder(own)
        write_evaluation(evaluation, own)
    if comparison:
        write_comparison(comparison, folder)
    show(f"written to {folder}")


def _check_scores(evaluations: list[Evaluation], least: float | None) -> None:
    """Raise where the challenge's mean F1 is below the demanded one."""
    # A mean of two numbers with four decimals has five at most; what lies beyond is floating point's.
    low = [e for e in evaluations if least is not None and round(e.challenge["mF1"], 5) < least]
    if low:
        scores = ", ".join(f"{e.name} {challenge_number(e.challenge['mF1'])}" for e in low)
        raise ScoreTooLowError(f"mF1 is below the demanded {least:g}: {scores}")
