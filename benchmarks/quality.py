"""What views and folds buy: mean F1 and time of a pair, on patients that no network has seen.

    python -m benchmarks.quality --data OCELOT --run RUN --encoder-weights FILE [--fold 0]

The default model's five cell networks cannot be scored together: every patient was seen by four of them. So
one fold is held out, and five networks are trained on the others by the `compact` recipe, alike but for their
seeds and, by default, for fewer epochs (kept in RUN/quality, resumed where they stopped). RUN is a run whose
tissue networks are trained. Prints a Markdown table for 1, 2, 4, 8 views and 1, 3, 5 networks, all with the
model's post-processing, and writes it as JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from softctm.choices import VIEW_COUNTS
from softctm.datasets.ocelot import load_release
from softctm.evaluation.scores import count_pairs, named_scores
from softctm.inference.detector import Detector
from softctm.model import Model, find_weights, load_model
from softctm.model.network_file import Network
from softctm.points import CellPoints
from softctm.training.config import preset_from_json, with_settings
from softctm.training.cross_validation import EnsembleRun
from softctm.training.loop import LoopConfig
from softctm.training.model_export import export_network
from softctm.training.presets import PRESETS

NETWORKS = (1, 3, 5)


def train_seed(seed: int, args: argparse.Namespace) -> Network:
    """Train, or load, the held-out fold's cell network of one seed, and export it."""
    torch.set_num_threads(1)
    run = _run(args)
    folder = args.run / "quality" / f"fold{args.fold}-epochs{args.epochs}-seed{seed}"
    file: Path = folder / "network.onnx"
    if not file.exists():
        job = replace(run.job("cells", args.fold), folder=folder, loop=LoopConfig(seed))
        export_network(run.run_cell_job(job), file)
    return Network(file, hashlib.sha256(file.read_bytes()).hexdigest(), args.fold)


def measure(model: Model, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Score every combination on the held-out fold, pair by pair so that none has the quieter machine."""
    run = _run(args)
    pairs = [pair for pair, own in zip(run.pairs, run.fold_of(), strict=True) if own == args.fold]
    detectors = {
        (views, count): Detector(model.with_networks("cells", count), views=views)
        for views in VIEW_COUNTS
        for count in NETWORKS
    }
    found: dict[tuple[int, int], list[CellPoints]] = {key: [] for key in detectors}
    seconds = dict.fromkeys(detectors, 0.0)
    for pair in pairs:
        image = pair.read()
        for key, detector in detectors.items():
            start = time.perf_counter()
            found[key].append(detector(image))
            seconds[key] += time.perf_counter() - start
    true = [pair.cells() for pair in pairs]
    return [
        {
            "views": views,
            "networks": count,
            "mean_f1": float(named_scores(count_pairs(found[views, count], true).sum(0))["mean_f1"]),
            "seconds_a_pair": seconds[views, count] / len(pairs),
        }
        for views, count in detectors
    ]


def _run(args: argparse.Namespace) -> EnsembleRun:
    config = json.loads((args.run / "config.json").read_text())
    preset = replace(preset_from_json(config), cells=PRESETS["compact"].cells)
    preset = with_settings(preset, [f"cells.optimizer.epochs={args.epochs}"])
    return EnsembleRun(load_release(args.data), args.run, preset, LoopConfig(), args.encoder_weights)


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--encoder-weights", required=True)
    parser.add_argument("--weights", type=Path, help="model whose tissue networks and rule are taken")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=4, help="of each network (default: 4)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    with ProcessPoolExecutor(args.processes, mp_context=get_context("fork")) as pool:
        networks = tuple(pool.map(partial(train_seed, args=args), range(max(NETWORKS))))
    model = load_model(find_weights(args.weights)).held_out(args.fold)
    cells = replace(model.cells, networks=networks)
    rows = measure(replace(model, stages={**model.stages, "cells": cells}), args)
    print("| views | cell networks | mean F1 | s per pair |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['views']} | {row['networks']} | {row['mean_f1']:.4f} | {row['seconds_a_pair']:.2f} |")
    (args.run / "quality" / f"fold{args.fold}-epochs{args.epochs}.json").write_text(
        json.dumps(rows, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
