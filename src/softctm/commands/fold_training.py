"""What the commands share that train one network per fold on images with nuclei."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Protocol

from softctm.commands.shared_options import seed
from softctm.errors import UsageError

if TYPE_CHECKING:
    from softctm.training.loop import LoopConfig


class FoldRun(Protocol):
    """What is trained: `NucleiRun` or `PointGuidedRun`."""

    def prepare(self, folds: int | None, seed: int, fold: int | None = None) -> None:
        """Write folds and configuration, or check them."""

    def fold_of(self) -> list[int]:
        """The fold of every image."""

    def train(self, fold: int | None) -> Any:
        """Train the network that holds out a fold, or nothing."""


def add_fold_training(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which networks are trained, and how the training is carried out."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--fold", type=int, help="train this fold only (default: every fold)")
    which.add_argument("--all-images", action="store_true", help="train one network that holds out nothing")
    parser.add_argument(
        "--folds",
        type=int,
        help="of a new run (default: 5, or fewer where there are fewer patients; with --start its own)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of folds and training (default: 0)")
    parser.add_argument(
        "--precision", choices=("bfloat16", "float32"), default="bfloat16", help="(default: bfloat16)"
    )
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=2.0, help="between checkpoints (default: 2)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that prepare batches (default: 0)"
    )


def loop_config(args: argparse.Namespace, validate_epochs: int) -> LoopConfig:
    """How the training is carried out; UsageError names what is out of range."""
    from softctm.training.loop import LoopConfig

    if args.workers < 0:
        raise UsageError(f"--workers {args.workers}: must be 0 or more")
    return LoopConfig(
        args.seed, args.checkpoint_minutes, validate_epochs, args.precision == "bfloat16", args.workers
    )


def train_folds(args: argparse.Namespace, run: FoldRun) -> None:
    """Train the networks that the options name, one after the other."""
    run.prepare(args.folds, args.seed, args.fold)
    folds = [args.fold] if args.fold is not None else sorted(set(run.fold_of()))
    for fold in [None] if args.all_images else folds:
        run.train(fold)
