"""`softctm pretrain`: a network from single images of other datasets, for `softctm train --start`."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands.shared_options import add_run_folder
from softctm.datasets.image_registry import IMAGE_DATASETS, load_images
from softctm.errors import UsageError
from softctm.extras import require_extra
from softctm.terminal.console import ConsoleProgress
from softctm.training.config import PRETRAINING_PRESETS, with_settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm pretrain`."""
    parser.add_argument("task", choices=("tissue", "cells"), help="what to train")
    parser.add_argument(
        "--data", action="append", required=True, metavar="NAME=PATH",
        help=f"a dataset, one of {', '.join(IMAGE_DATASETS)}, and its folder (may be repeated)",
    )  # fmt: skip
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
    parser.add_argument("--seed", type=int, default=0, help="of sampling and augmentation (default: 0)")
    parser.add_argument(
        "--encoder-weights",
        metavar="FILE|NAME",
        help="initialization of the encoder, as of `softctm train` (default: random)",
    )


def run(args: argparse.Namespace) -> int:
    """Pretrain the network."""
    require_extra("train")
    from softctm.training.loop import LoopConfig
    from softctm.training.pretraining import Pretraining
    from softctm.training.segmenters import ClassicalSegmenter

    images = {}
    for given in args.data:
        name, separator, path = given.partition("=")
        if not separator:
            raise UsageError(f"--data {given}: must be NAME=PATH, such as consep=data/consep")
        if name in images:
            raise UsageError(f"--data {name}: given twice")
        images[name] = load_images(name, Path(path))
    preset = with_settings(PRETRAINING_PRESETS[args.preset], args.settings)
    Pretraining(
        args.task,
        images,
        args.run_folder,
        preset.of(args.task),
        LoopConfig(args.seed),
        args.encoder_weights,
        ClassicalSegmenter(),
        ConsoleProgress(),
    ).run()
    return 0
