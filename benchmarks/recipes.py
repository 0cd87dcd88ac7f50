"""Which way of training cell networks pays off: short runs on several folds, side by side.

    python -m benchmarks.recipes --data DATA --run RUN --encoder-weights FILE \
        [--pretrained PRE] [--segmenter points|FILE] [--fold 0 --fold 1 --fold 2] [--epochs 6] [--only NAME]

RUN is a run folder whose tissue networks are trained (`softctm train tissue`), PRE what `softctm pretrain
cells` made, FILE a network of `softctm train points`. Every experiment trains a cell network for each fold on
the other folds, with the same seed and number of epochs (those that see both patches train their tissue
branch along), and is scored on the fold with one view. Its post-processing rule is chosen on the other folds,
and its difference from the run's own recipe has a 95 % interval from resamples of patients. What has been
trained or counted is kept in RUN/recipes, so that the command resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.experiments import EXPERIMENTS, RECIPE
from softctm.datasets.ocelot import load_release
from softctm.evaluation.bootstrap import Bootstrap, percentile_interval
from softctm.evaluation.out_of_fold import count_by_rule, out_of_fold
from softctm.evaluation.scores import named_scores
from softctm.jobs.slide_state import npy_bytes
from softctm.model.tasks import CELL_CLASSES
from softctm.storage.files import write_bytes_atomically
from softctm.training.config import preset_from_json, with_settings
from softctm.training.cross_validation import EnsembleRun
from softctm.training.fold_training import FoldJob
from softctm.training.initialization import from_encoder
from softctm.training.loop import LoopConfig
from softctm.training.segmenters import open_segmenter
from softctm.training.starts import PretrainedStart


def counts_of(job: tuple[str, int], args: argparse.Namespace) -> NDArray[np.int64]:
    """Train one experiment on one fold and count its cells: (pairs of the fold, rules, 2, 3) int64."""
    torch.set_num_threads(1)
    name, fold = job
    folder = folder_of(name, args) / f"fold{fold}"
    stored = folder / "counts.npy"
    if stored.exists():
        counted: NDArray[np.int64] = np.load(stored)
        return counted
    experiment, began = EXPERIMENTS[name], time.process_time()
    settings = [*experiment.settings, f"cells.optimizer.epochs={args.epochs}"]
    preset = with_settings(preset_from_json(json.loads((args.run / "config.json").read_text())), settings)
    segmenter = open_segmenter(args.segmenter if experiment.guided else "classical")
    run = EnsembleRun(
        load_release(args.data), args.run, preset, LoopConfig(), args.encoder_weights, segmenter
    )
    initialize = (
        PretrainedStart(args.pretrained).network("cells", fold)
        if experiment.pretrained
        else from_encoder(args.encoder_weights)
    )
    patients = [pair.patient for pair in run.pairs]
    fold_job = FoldJob(fold, run.fold_of(), initialize, LoopConfig(), folder, patients)
    network = run.run_cell_job(fold_job)
    arrays, points = run.cell_arrays(), [pair.cells() for pair in run.pairs]
    counts = []
    for index in fold_job.validation.tolist():
        image, _ = arrays.sample(index)
        with torch.inference_mode():
            logits = functional.interpolate(
                network(image[None]), scale_factor=preset.cells.network.downsampling, mode="bilinear"
            )
        cells = logits[0, : len(CELL_CLASSES)].softmax(0)
        counts.append(count_by_rule(cells.numpy(), points[index]))
    write_bytes_atomically(stored, npy_bytes(np.stack(counts)))
    (folder / "seconds.txt").write_text(f"{time.process_time() - began:.0f}\n")
    return np.stack(counts)


def folder_of(name: str, args: argparse.Namespace) -> Path:
    """Where an experiment keeps what it counts: elsewhere for another encoder, segmenter or start."""
    experiment = EXPERIMENTS[name]
    parts = [name.replace(", ", "-").replace(" ", "-").lower(), str(args.epochs)]
    if Path(args.encoder_weights).is_file():
        parts.append(_digest(Path(args.encoder_weights).read_bytes()))
    if experiment.guided:
        parts.append(_digest(repr(open_segmenter(args.segmenter)).encode()))
    if experiment.pretrained:
        parts.append(_digest((args.pretrained / "cells" / "network.safetensors").read_bytes()))
    folder: Path = args.run / "recipes" / "-".join(parts)
    return folder


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def scores(
    counts: dict[int, NDArray[np.int64]], run: EnsembleRun
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Scores with rules chosen on the other folds, and the (patients, 2, 3) counts behind them."""
    folds = np.concatenate([np.full(len(own), fold) for fold, own in counts.items()])
    chosen = [
        pair for fold in counts for pair, own in zip(run.pairs, run.fold_of(), strict=True) if own == fold
    ]
    by_rule = np.concatenate(list(counts.values()))
    nothing = np.zeros((len(by_rule), 2, 3), np.int64)
    found = out_of_fold(by_rule, nothing, folds.tolist(), [pair.organ for pair in chosen]).counts
    names, patient = np.unique([pair.patient for pair in chosen], return_inverse=True)
    by_patient = np.zeros((len(names), 2, 3))
    np.add.at(by_patient, patient, found)
    return {name: float(value) for name, value in named_scores(found.sum(0)).items()}, by_patient


def row(counts: NDArray[np.float64], baseline: NDArray[np.float64], bootstrap: Bootstrap) -> str:
    """How an experiment differs from the recipe, with its interval over patients."""
    ours, theirs = (named_scores(bootstrap.sums(own))["mean_f1"] for own in (counts, baseline))
    low, high = percentile_interval(ours - theirs)
    difference = named_scores(counts.sum(0))["mean_f1"] - named_scores(baseline.sum(0))["mean_f1"]
    return f"{difference:+.4f} [{low:+.4f}, {high:+.4f}]"


def runnable(args: argparse.Namespace) -> list[str]:
    """The experiments that have what they need."""
    return [
        name
        for name, experiment in EXPERIMENTS.items()
        if (args.pretrained or not experiment.pretrained) and (args.segmenter or not experiment.guided)
    ]


def main() -> None:
    """Run the experiments and print the table; JSON goes to RUN/recipes/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--encoder-weights", required=True)
    parser.add_argument("--pretrained", type=Path, help="for the experiments that start from it")
    parser.add_argument("--segmenter", help="points or FILE, for the experiments with guided masks")
    parser.add_argument("--fold", type=int, action="append", help="(may be repeated; default: 0, 1, 2)")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", action="append", choices=EXPERIMENTS, help="run this one (may be repeated)")
    args = parser.parse_args()
    folds = args.fold or [0, 1, 2]
    names = [RECIPE, *(name for name in args.only or runnable(args) if name != RECIPE)]
    if lacking := set(names) - set(runnable(args)):
        parser.error(f"{', '.join(sorted(lacking))}: need --pretrained or --segmenter")
    run = EnsembleRun(
        load_release(args.data),
        args.run,
        preset_from_json(json.loads((args.run / "config.json").read_text())),
        LoopConfig(),
        args.encoder_weights,
    )
    rows: list[dict[str, Any]] = []
    baseline: NDArray[np.float64] | None = None
    bootstrap: Bootstrap | None = None
    print("| experiment | mean F1 | F1 BC | F1 TC | difference from the recipe |\n" + "| --- " * 5 + "|")
    with ProcessPoolExecutor(args.processes, mp_context=get_context("fork")) as pool:
        jobs = [(name, fold) for name in names for fold in folds]
        counted = pool.map(partial(counts_of, args=args), jobs)
        for name in names:
            figures, by_patient = scores({fold: next(counted) for fold in folds}, run)
            if baseline is None or bootstrap is None:
                baseline, bootstrap = by_patient, Bootstrap(len(by_patient))
            difference = "" if name == RECIPE else row(by_patient, baseline, bootstrap)
            rows.append({"experiment": name, **figures, "difference": difference})
            shown = " | ".join(f"{figures[figure]:.4f}" for figure in ("mean_f1", "f1_bc", "f1_tc"))
            print(f"| {name} | {shown} | {difference} |", flush=True)
    document = {"folds": folds, "epochs": args.epochs, "experiments": rows}
    (args.run / "recipes" / f"epochs{args.epochs}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
