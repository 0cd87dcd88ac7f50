"""Which way of training cell networks pays off: short runs on one fold, side by side.

    python -m benchmarks.recipes --data DATA --run RUN --encoder-weights FILE [--fold 0] [--epochs 3]

RUN is a run folder whose tissue networks are trained (`softctm train tissue`). Every variant trains a cell
network on the other folds, with the same seed and number of epochs, and is scored on the fold with one view:
mean F1 under the authors' rule, and under the best of the rules that validation chooses from. That best
is chosen on the fold itself, for every variant alike: good for comparing, too high to report.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from softctm.datasets.ocelot import load_release
from softctm.evaluation.out_of_fold import AUTHORS_RULE, RULES, count_by_rule
from softctm.evaluation.scores import named_scores, pair_counts
from softctm.postprocessing.registry import find_cells
from softctm.postprocessing.watershed import Watershed
from softctm.training.config import preset_from_json, with_settings
from softctm.training.cross_validation import EnsembleRun
from softctm.training.initialization import from_encoder
from softctm.training.loop import LoopConfig
from softctm.training.tasks import FoldJob, train_cells

VARIANTS = {
    "compact": (),
    "soft 3 um": ("cells.target.sigma_um=3",),
    "soft 3 um, square error": ("cells.target.sigma_um=3", "cells.target.loss=square-error"),
    "circle, Dice": ("cells.target.kind=circle", "cells.target.loss=generalized-dice"),
    "hard, Dice": ("cells.target.kind=hard", "cells.target.loss=generalized-dice"),
    "no tissue": ("cells.coupling=none",),
    "annotated tissue": ("cells.coupling=annotated",),
    "one learning rate": ("cells.optimizer.learning_rate=4e-4", "cells.optimizer.encoder_factor=1"),
    "faster encoder": ("cells.optimizer.learning_rate=2e-3", "cells.optimizer.encoder_factor=0.1"),
}
"""Name → what differs from the run's own recipe."""


@dataclass(frozen=True)
class Outcome:
    """Scores of one variant on the fold."""

    variant: str
    authors_rule: float
    best_rule: float
    rule: str
    hard_mask: float


def run_variant(name: str, args: argparse.Namespace) -> Outcome:
    """Train one variant, or load it, and score it."""
    torch.set_num_threads(1)
    settings = [*VARIANTS[name], f"cells.optimizer.epochs={args.epochs}"]
    config = json.loads((args.run / "config.json").read_text())
    preset = with_settings(preset_from_json(config), settings)
    base = EnsembleRun(load_release(args.data), args.run, preset, LoopConfig(), args.encoder_weights)
    short = name.replace(", ", "-").replace(" ", "-")
    folder = args.run / "recipes" / f"{short}-{args.epochs}-fold{args.fold}"
    patients = [pair.patient for pair in base.pairs]
    job = FoldJob(
        args.fold, base.fold_of(), from_encoder(args.encoder_weights), LoopConfig(), folder, patients
    )
    arrays, points = base.cell_arrays(), [pair.cells() for pair in base.pairs]
    network = train_cells(preset.cells, arrays, points, job)
    counts, masked = [], []
    for index in job.validation.tolist():
        image, _ = arrays.sample(index)
        with torch.inference_mode():
            logits = functional.interpolate(
                network(image[None]), scale_factor=preset.cells.network.downsampling, mode="bilinear"
            )
        probability = logits.softmax(1)[0].numpy()
        counts.append(count_by_rule(probability, points[index]))
        masked.append(pair_counts(find_cells(probability, Watershed()), points[index]))
    by_rule = named_scores(np.sum(counts, axis=0))["mean_f1"]
    best = int(np.argmax(by_rule))
    return Outcome(
        variant=name,
        authors_rule=float(by_rule[RULES.index(AUTHORS_RULE)]),
        best_rule=float(by_rule[best]),
        rule=f"σ {RULES[best].sigma_px}, d {RULES[best].distance_px}, t {RULES[best].threshold}",
        hard_mask=float(named_scores(np.sum(masked, axis=0))["mean_f1"]),
    )


def main() -> None:
    """Run the variants and print the table; JSON goes to RUN/recipes/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--encoder-weights", required=True)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--only", action="append", choices=VARIANTS, help="run this variant (may be repeated)"
    )
    args = parser.parse_args()
    names = args.only or list(VARIANTS)
    rows: list[dict[str, Any]] = []
    print("| variant | authors' rule | best rule | which | hard mask |\n| --- | --- | --- | --- | --- |")
    with ProcessPoolExecutor(args.processes, mp_context=get_context("fork")) as pool:
        for outcome in pool.map(partial(run_variant, args=args), names):
            rows.append(asdict(outcome))
            print(
                f"| {outcome.variant} | {outcome.authors_rule:.4f} | {outcome.best_rule:.4f} "
                f"| {outcome.rule} | {outcome.hard_mask:.4f} |",
                flush=True,
            )
    (args.run / "recipes" / f"fold{args.fold}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
