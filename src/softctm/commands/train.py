"""`softctm train`: tissue networks, cell networks, or the whole ensemble, resuming where it stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands.shared_options import add_release, add_run_folder, add_segmenter, load_pairs, seed
from softctm.errors import UsageError
from softctm.extras import require_extra
from softctm.ort.processors import available_processors
from softctm.terminal.console import ConsoleProgress
from softctm.training.config import with_settings
from softctm.training.presets import FINETUNING, PRESETS


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm train`."""
    parser.add_argument(
        "task", choices=("tissue", "cells", "all"), help="what to train; all: every fold of both"
    )
    add_release(parser)
    add_run_folder(parser, "the run's folder")
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), default="compact", help="recipe (default: compact)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="change one value of the preset, such as cells.target.sigma_um=2 (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--fold", type=int, help="train this fold only (default: every fold)")
    parser.add_argument("--folds", type=int, help="number of folds of a new run (default: 5)")
    parser.add_argument("--folds-file", type=Path, help="use these folds instead of making some")
    parser.add_argument(
        "--seed", type=seed, default=0, help="of folds, sampling and augmentation (default: 0)"
    )
    parser.add_argument(
        "--encoder-weights",
        metavar="FILE|NAME",
        help="initialization of encoders: a safetensors file, or a name such as imagenet (default: random)",
    )
    parser.add_argument(
        "--start", action="append", default=[], metavar="[TASK=]RUN|MODEL",
        help="initialize networks from this run or model, fold by fold, and keep its folds; or from what "
        "`softctm pretrain` made; TASK= where tissue and cells have different ones (may be repeated)",
    )  # fmt: skip
    add_segmenter(parser)
    parser.add_argument(
        "--pair-weights", type=Path, metavar="FILE",
        help="draw single pairs less often in training, or never: JSON with a rule in words and a weight "
        "for each (`python -m benchmarks.misclassified --pair-weights` writes such a file)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("bfloat16", "float32"), default="bfloat16", help="(default: bfloat16)"
    )
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=2.0, help="between checkpoints (default: 2)"
    )
    parser.add_argument(
        "--validate-epochs", type=int, default=4, help="between validations; 0: never (default: 4)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N",
        help="processes that prepare batches; 0: the training process does (default: by processors and GPU)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train what was asked for."""
    require_extra("train")
    from softctm.training.cross_validation import EnsembleRun
    from softctm.training.loop import LoopConfig
    from softctm.training.pair_weights import read_pair_weights
    from softctm.training.segmenters import open_segmenter
    from softctm.training.starts import open_start

    if args.workers is not None and args.workers < 0:
        raise UsageError(f"--workers {args.workers}: must be 0 or more")
    if args.preset in FINETUNING and not args.start:
        raise UsageError(f"--preset {args.preset}: fine-tunes trained networks; name them by --start")
    start = open_start(args.start)
    if start and start.folds and (args.folds or args.folds_file):
        option = "--folds" if args.folds else "--folds-file"
        raise UsageError(f"{option}: has no effect beside --start, which brings its own; leave one out")
    preset = with_settings(PRESETS[args.preset], args.settings)
    if args.task not in (*preset.tasks, "all"):
        raise UsageError(
            f"{args.task}: these cell networks see the tissue patch themselves, so that there is no such "
            "network to train; train cells, or all"
        )
    ensemble = EnsembleRun(
        pairs=load_pairs(args),
        folder=args.run_folder,
        preset=preset,
        loop=LoopConfig(
            args.seed,
            args.checkpoint_minutes,
            args.validate_epochs,
            args.precision == "bfloat16",
            workers=default_workers() if args.workers is None else args.workers,
        ),
        encoder_weights=args.encoder_weights,
        segmenter=open_segmenter(args.segmenter),
        start=start,
        pair_weights=read_pair_weights(args.pair_weights) if args.pair_weights else None,
        progress=ConsoleProgress(),
    )
    ensemble.prepare(args.folds, args.seed, args.folds_file, args.fold)
    folds = [args.fold] if args.fold is not None else sorted(set(ensemble.fold_of()))
    train = {"tissue": ensemble.train_tissue, "cells": ensemble.train_cells}
    for task in preset.tasks:
        for fold in folds if args.task in (task, "all") else ():
            train[task](fold)
    return 0


def default_workers() -> int:
    """Worker processes for batches; `python -m benchmarks.feeding` shows what is fastest on a machine."""
    import torch

    processors = available_processors()
    return min(8, processors - 1) if torch.cuda.is_available() else min(2, processors - 1)
