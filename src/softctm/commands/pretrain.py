"""`softctm pretrain`: a network from single images of other datasets, for `softctm train --start`."""

from __future__ import annotations

import argparse

from softctm.commands.shared_options import (
    add_image_data,
    add_run_folder,
    add_segmenter,
    load_image_data,
    seed,
)
from softctm.extras import require_extra
from softctm.terminal.console import ConsoleProgress
from softctm.training.config import with_settings
from softctm.training.presets import PRETRAINING_PRESETS


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm pretrain`."""
    parser.add_argument("task", choices=("tissue", "cells"), help="what to train")
    add_image_data(parser)
    add_run_folder(parser, "the folder of the pretrained network")
    parser.add_argument(
        "--preset",
        choices=sorted(PRETRAINING_PRESETS),
        default="compact-pretrain",
        help="recipe (default: %(default)s)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="change one value of the preset, such as cells.optimizer.epochs=4 (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--seed", type=seed, default=0, help="of sampling and augmentation (default: 0)")
    parser.add_argument(
        "--encoder-weights",
        metavar="FILE|NAME",
        help="initialization of the encoder, as of `softctm train` (default: random)",
    )
    add_segmenter(parser)


def run(args: argparse.Namespace) -> int:
    """Pretrain the network."""
    require_extra("train")
    from softctm.training.loop import LoopConfig
    from softctm.training.pretraining import Pretraining
    from softctm.training.segmenters import open_segmenter

    preset = with_settings(PRETRAINING_PRESETS[args.preset], args.settings)
    Pretraining(
        args.task,
        load_image_data(args.data),
        args.run_folder,
        preset.of(args.task),
        LoopConfig(args.seed),
        args.encoder_weights,
        open_segmenter(args.segmenter),
        ConsoleProgress(),
    ).run()
    return 0
