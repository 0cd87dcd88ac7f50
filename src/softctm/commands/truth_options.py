"""Command-line options that name predictions and truth, for every command that compares the two."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from softctm.commands.shared_options import add_patient_key
from softctm.datasets.patients import PatientKey
from softctm.errors import UsageError
from softctm.evaluation.predictions import FormatError, load_predictions
from softctm.evaluation.truth import SUBSETS, GroundTruth, load_truth
from softctm.points import CellPoints
from softctm.storage.text_files import read_text

_logger = logging.getLogger(__name__)


def add_truth_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--truth`, `--subset`, `--ids` and `--patient-key`."""
    parser.add_argument(
        "--truth",
        type=Path,
        required=required,
        metavar="PATH",
        help="folder of an OCELOT release, or a cell_gt.json with num_images",
    )
    parser.add_argument(
        "--subset", choices=SUBSETS, help="subset of the release (default: the only one there is)"
    )
    parser.add_argument(
        "--ids",
        type=Path,
        metavar="FILE",
        help="text file with the release's IDs that image_0, image_1, … stand for, one per line "
        "(default: all of the subset, sorted)",
    )
    add_patient_key(parser)


def truth_of(args: argparse.Namespace) -> GroundTruth:
    """Load what the options of `add_truth_options` name.

    Raises
    ------
    InputError, UsageError
        If it is missing, malformed or contradictory.
    """
    ids = None
    if args.ids is not None:
        lines = read_text(args.ids, remedy="give a text file of IDs").splitlines()
        ids = [line.strip() for line in lines if line.strip()]
    truth = load_truth(args.truth, args.subset, ids, PatientKey(args.patient_key))
    for warning in truth.warnings:
        _logger.warning("%s", warning)
    return truth


def predictions_of(path: Path, num_images: int) -> list[CellPoints]:
    """`load_predictions` that tells every fault of a malformed file before it raises."""
    try:
        return load_predictions(path, num_images)
    except FormatError as error:
        for fault in error.faults:
            _logger.error("%s: %s", path, fault)
        raise


def short_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file, as short as keeps them apart: stem, then with its folders.

    Raises
    ------
    UsageError
        If a file is named twice.
    """
    whole = [path.resolve() for path in paths]
    if len(set(whole)) < len(whole):
        raise UsageError("a predictions' file is named twice; name each once")
    for depth in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.with_suffix("").parts[-depth:]) for path in whole]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in whole]  # they differ in nothing but the suffix
