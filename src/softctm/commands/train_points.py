"""`softctm train points`: networks that outline the nucleus at a point, for `--segmenter`; resuming."""

from __future__ import annotations

import argparse

from softctm.commands.shared_options import add_image_data, add_run_folder, load_image_data
from softctm.errors import UsageError
from softctm.extras import require_extra

_FOLDS = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm train points`."""
    add_image_data(parser)
    add_run_folder(parser, "the run's folder")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="change one value of the recipe, such as optimizer.epochs=4 (may be repeated)",
    )  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--fold", type=int, help="train this fold only (default: every fold)")
    which.add_argument("--all-images", action="store_true", help="train one network that holds out nothing")
    parser.add_argument("--folds", type=int, default=_FOLDS, help=f"number of folds (default: {_FOLDS})")
    parser.add_argument("--seed", type=int, default=0, help="of folds and training (default: 0)")
    parser.add_argument(
        "--encoder-weights", metavar="FILE|NAME",
        help="initialization of the encoder, as of `softctm train` (default: random)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("bfloat16", "float32"), default="bfloat16", help="(default: bfloat16)"
    )
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=2.0, help="between checkpoints (default: 2)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that prepare batches (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Train what was asked for."""
    require_extra("train")
    from softctm.training.config import with_settings
    from softctm.training.loop import LoopConfig
    from softctm.training.point_guided import COMPACT
    from softctm.training.point_guided_run import PointGuidedRun

    if args.workers < 0:
        raise UsageError(f"--workers {args.workers}: must be 0 or more")
    loop = LoopConfig(
        args.seed, args.checkpoint_minutes, 1, args.precision == "bfloat16", workers=args.workers
    )
    config = with_settings(COMPACT, args.settings)
    points = PointGuidedRun(args.run_folder, load_image_data(args.data), config, loop, args.encoder_weights)
    points.prepare(args.folds, args.seed)
    folds = [args.fold] if args.fold is not None else sorted(set(points.fold_of()))
    for fold in [None] if args.all_images else folds:
        points.train(fold)
    return 0
