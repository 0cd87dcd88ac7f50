"""`softctm train points`: networks that outline the nucleus at a point, for `--segmenter`; resuming."""

from __future__ import annotations

import argparse

from softctm.commands.fold_training import add_fold_training, loop_config, train_folds
from softctm.commands.shared_options import add_image_data, add_run_folder, load_image_data
from softctm.extras import require_extra


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm train points`."""
    add_image_data(parser)
    add_run_folder(parser, "the run's folder")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="change one value of the recipe, such as optimizer.epochs=4 (may be repeated)",
    )  # fmt: skip
    add_fold_training(parser)
    parser.add_argument(
        "--encoder-weights", metavar="FILE|NAME",
        help="initialization of the encoder, as of `softctm train` (default: random)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train what was asked for."""
    require_extra("train")
    from softctm.training.config import with_settings
    from softctm.training.point_guided.run import PointGuidedRun
    from softctm.training.point_guided.task import COMPACT

    loop, config = loop_config(args, validate_epochs=1), with_settings(COMPACT, args.settings)
    data = load_image_data(args.data)
    train_folds(args, PointGuidedRun(args.run_folder, data, config, loop, args.encoder_weights))
    return 0
