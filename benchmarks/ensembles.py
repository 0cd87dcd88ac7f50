"""Is one model better than another on patients that neither has seen, and by more than chance?

    python -m benchmarks.ensembles --data DATA --weights MODEL --than MODEL [--views 8] \
        [--work DIR] [--than-work DIR]

Both models are trained on the same folds. Every pair is predicted by the networks that held out its fold,
and rules are chosen crosswise, as in `softctm validate`, whose --work folders can be given here. Prints a
Markdown table for all pairs and for each organ: both models' mean F1 of cells and of tissue, and their
differences with 95 % intervals from resamples of patients, the same for both.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.recipes.comparison import FIGURES, Difference, difference
from softctm.choices import VIEW_COUNTS
from softctm.datasets.ocelot import load_release
from softctm.errors import SoftCTMError
from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.out_of_fold import OutOfFold
from softctm.jobs.validation import Validation, prepare_validation
from softctm.model import load_model
from softctm.training.config import Task


def compared(ours: OutOfFold, theirs: OutOfFold) -> Iterator[tuple[str, int, Task, list[float], Difference]]:
    """Compare two models on the same pairs, all of them and then each organ's.

    Yields
    ------
    name : str
        `all` or the organ.
    pairs : int
    task : "cells" or "tissue"
    mean_f1 : list of float
        Ours and theirs.
    difference : Difference
        Ours minus theirs.
    """
    organs, patients = np.array(ours.organ_of), np.array(ours.patient_of)
    groups: dict[str, NDArray[np.bool_]] = {"all": np.ones(len(organs), bool)}
    groups |= {organ: organs == organ for organ in sorted(set(ours.organ_of))}
    for name, member in groups.items():
        bootstrap = Bootstrap(int(member.sum()), unit_of=patients[member].tolist())
        both: dict[Task, list[NDArray[np.float64]]] = {
            "cells": [own.counts[member].astype(np.float64) for own in (ours, theirs)],
            "tissue": [own.tissue_counts[member].astype(np.float64) for own in (ours, theirs)],
        }
        for task, (first, second) in both.items():
            mean_f1 = [float(FIGURES[task](counts.sum(0))["mean_f1"]) for counts in (first, second)]
            yield name, int(member.sum()), task, mean_f1, difference(task, first, second, bootstrap)


def main() -> None:
    """Predict and count what is not there yet, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--than", type=Path, required=True, help="the model that it is compared with")
    parser.add_argument("--views", type=int, choices=VIEW_COUNTS, default=8, help="(default: 8)")
    parser.add_argument("--work", type=Path, help="keeps the counts of --weights")
    parser.add_argument("--than-work", type=Path, help="keeps the counts of --than")
    args = parser.parse_args()

    def validation(weights: Path, work: Path | None) -> Validation:
        model = load_model(weights)
        return prepare_validation(model, load_release(args.data), args.data, views=args.views, work=work)

    try:
        ours, theirs = validation(args.weights, args.work), validation(args.than, args.than_work)
        if ours.folds.of_pair != theirs.folds.of_pair:
            parser.error(
                f"{args.weights} and {args.than} hold out other pairs; compare models of the same folds"
            )
        rows = compared(ours.outcome(), theirs.outcome())
    except SoftCTMError as error:
        parser.error(str(error))
    print("| | pairs | task | mean F1 | the other's | difference |\n" + "| --- " * 6 + "|")
    for name, pairs, task, (own, other), apart in rows:
        print(f"| {name} | {pairs} | {task} | {own:.4f} | {other:.4f} | {apart} |")


if __name__ == "__main__":
    main()
