"""Which way of training pays off: short runs on several folds, side by side.

    python -m benchmarks.recipes --data DATA --run RUN --encoder-weights FILE \
        [--task tissue] [--pretrained PRE …] [--segmenter points|FILE] [--pair-weights FILE] \
        [--fold 0 --fold 1 --fold 2] [--epochs 6] [--only NAME …]

RUN is a run folder; for cells its tissue networks are trained (`softctm train tissue`). PRE is what
`softctm pretrain` made, FILE of --segmenter a network of `softctm train points`. Every experiment trains a
network for each fold on the other folds, with the same seed and number of epochs (those that see both patches
train their tissue branch along), and is scored on the fold with one view. A rule that finds cells is chosen
on the other folds, and the difference from the run's own recipe has a 95 % interval from resamples of
patients. What has been trained or counted is kept in RUN/recipes, so that the command resumes where it was
stopped; a fold's minutes are then those since it was last resumed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.recipes.comparison import FIGURES, SHOWN, counts_by_patient, difference
from benchmarks.recipes.experiments import EXPERIMENTS, RECIPE
from benchmarks.recipes.trials import Setup, Trial
from softctm.evaluation.bootstrap import Bootstrap
from softctm.storage.files import write_json_atomically
from softctm.training.config import Task


def trials_of(setup: Setup, only: Sequence[str], pretrained: Sequence[Path]) -> list[Trial]:
    """The recipe, and the experiments named (all that have what they need where none is named).

    Raises
    ------
    ValueError
        If an experiment is unknown, or lacks what it needs.
    """
    experiments = EXPERIMENTS[setup.task]
    if unknown := [name for name in only if name not in experiments]:
        raise ValueError(
            f"--only {unknown[0]}: no experiment on {setup.task}; they are {', '.join(experiments)}"
        )
    lacking = {
        name: option
        for name, experiment in experiments.items()
        for needed, given, option in (
            (experiment.pretrained, pretrained, "--pretrained"),
            (experiment.guided, setup.segmenter, "--segmenter"),
            (experiment.weighted, setup.pair_weights, "--pair-weights"),
        )
        if needed and not given
    }
    if without := [name for name in only if name in lacking]:
        raise ValueError(f"--only {without[0]}: needs {lacking[without[0]]}")
    names = [RECIPE, *(name for name in only or experiments if name not in (RECIPE, *lacking))]
    return [
        Trial(name, start)
        for name in names
        for start in (pretrained if experiments[name].pretrained else [None])
    ]


def main() -> None:
    """Run the experiments and print the table; JSON goes to RUN/recipes/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--encoder-weights", required=True)
    parser.add_argument("--task", choices=get_args(Task), default="cells")
    parser.add_argument(
        "--pretrained", type=Path, action="append", default=[], help="start from it (may be repeated)"
    )
    parser.add_argument("--segmenter", help="points or FILE, for the experiments with guided masks")
    parser.add_argument("--pair-weights", type=Path, help="for the experiments with weighted pairs")
    parser.add_argument("--fold", type=int, action="append", help="(may be repeated; default: 0, 1, 2)")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", action="append", default=[], help="run this one (may be repeated)")
    args = parser.parse_args()
    setup = Setup(
        args.data, args.run, args.encoder_weights, args.segmenter, args.pair_weights, args.task, args.epochs
    )
    try:
        trials = trials_of(setup, args.only, args.pretrained)
    except ValueError as error:
        parser.error(str(error))
    run_trials(setup, trials, args.fold or [0, 1, 2], args.processes)


def run_trials(setup: Setup, trials: Sequence[Trial], folds: Sequence[int], processes: int) -> None:
    """Train and count what is not there yet, and print a line as soon as a trial has all its folds."""
    run = setup.run(EXPERIMENTS[setup.task][RECIPE])
    shown = SHOWN[setup.task]
    head = ["experiment", *shown, "difference from the recipe", "core minutes per fold"]
    print(f"| {' | '.join(head)} |\n" + "| --- " * len(head) + "|")
    rows: list[dict[str, Any]] = []
    baseline: NDArray[np.float64] | None = None
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        jobs = [(trial, fold) for trial in trials for fold in folds]
        counted = pool.map(_counts, [setup] * len(jobs), *zip(*jobs, strict=True))
        for trial in trials:
            counts = counts_by_patient(setup.task, {fold: next(counted) for fold in folds}, run)
            if baseline is None:
                baseline, bootstrap = counts, Bootstrap(len(counts))
            apart = difference(setup.task, counts, baseline, bootstrap) if trial.name != RECIPE else None
            figures = {name: float(value) for name, value in FIGURES[setup.task](counts.sum(0)).items()}
            minutes = trial.minutes_per_fold(setup)
            rows.append(
                {
                    "experiment": trial.name,
                    **figures,
                    "difference": vars(apart) if apart else None,
                    "core_minutes_per_fold": minutes,
                }
            )
            cells = [f"{figures[figure]:.4f}" for figure in shown.values()]
            print(f"| {' | '.join([trial.name, *cells, str(apart or ''), f'{minutes:.1f}'])} |", flush=True)
    document = {"task": setup.task, "folds": folds, "epochs": setup.epochs, "experiments": rows}
    write_json_atomically(setup.folder / "recipes" / f"{setup.task}-epochs{setup.epochs}.json", document)


def _counts(setup: Setup, trial: Trial, fold: int) -> NDArray[np.int64]:
    return trial.counts(setup, fold)


if __name__ == "__main__":
    main()
