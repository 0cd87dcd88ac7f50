"""`softctm validate nuclei`: score a run's networks on the images that each of them held out."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands.nuclei_run_options import add_nuclei_run, finished_run
from softctm.extras import require_extra
from softctm.storage.files import prepare_folder
from softctm.terminal.console import show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm validate nuclei`."""
    add_nuclei_run(parser, "a run whose folds are trained")
    parser.add_argument(
        "--output", type=Path, required=True,
        help="gets the nuclei, one folder per data set and image, and the scores",
    )  # fmt: skip
    parser.add_argument(
        "--fold",
        type=int,
        action="append",
        help="score this one only (may be repeated; default: every fold)",
    )


def run(args: argparse.Namespace) -> int:
    """Predict, write, score each data set by itself."""
    require_extra("train")
    from softctm.datasets.nuclei import open_nuclei
    from softctm.datasets.nuclei.base import SomeImages
    from softctm.evaluation.nuclei.scores import evaluate_nuclei
    from softctm.evaluation.nuclei.summary import summary
    from softctm.jobs.nuclei.validation import predict_out_of_fold
    from softctm.report.nuclei_tables import write_nuclei_evaluation

    nuclei = finished_run(args)
    truth = dict(nuclei.datasets)
    for name, images in sorted(predict_out_of_fold(nuclei, args.output, args.fold).items()):
        evaluation = evaluate_nuclei(
            SomeImages(truth[name], images),
            open_nuclei(args.output / name),
            name=name,
            magnification=nuclei.config.magnification,
        )
        show("\n".join(summary(evaluation)))
        scores = args.output / f"{name}_scores"
        prepare_folder(scores)
        write_nuclei_evaluation(evaluation, scores)
    return 0
