"""`softctm train nuclei`: one network a fold, or one of all images, resuming where it stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.commands.fold_training import add_fold_training, loop_config, train_folds
from softctm.commands.nuclei_run_options import add_nuclei_run, open_all
from softctm.errors import UsageError
from softctm.extras import require_extra

_PRESETS = ("cellvit-256", "compact")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm train nuclei`."""
    add_nuclei_run(parser)
    parser.add_argument("--preset", choices=_PRESETS, default="compact", help="recipe (default: compact)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="change one value of the preset, such as optimizer.epochs=20 (may be repeated)",
    )  # fmt: skip
    add_fold_training(parser)
    parser.add_argument(
        "--encoder-weights", metavar="FILE|NAME",
        help="initialization of the encoder: safetensors, a name such as imagenet, or for CellViT a file of "
        "DINO or SAM (default: random)",
    )  # fmt: skip
    parser.add_argument(
        "--start", type=Path, metavar="RUN|MODEL",
        help="begin with the networks of another run, fold by fold, or with the one of a model that `softctm "
        "export nuclei` wrote; types are matched by name",
    )  # fmt: skip
    parser.add_argument(
        "--validate-epochs", type=int, default=2, help="between validations; 0: never (default: 2)"
    )


def run(args: argparse.Namespace) -> int:
    """Train what was asked for."""
    require_extra("train")
    from softctm.training.config import with_settings
    from softctm.training.nuclei.config import NUCLEI_PRESETS
    from softctm.training.nuclei.run import NucleiRun
    from softctm.training.nuclei.starts import NucleiStart

    if args.start and args.encoder_weights:
        raise UsageError("--start brings the encoder's weights along; leave --encoder-weights out")

    loop = loop_config(args, args.validate_epochs)
    config, data = with_settings(NUCLEI_PRESETS[args.preset], args.settings), open_all(args.data)
    start = NucleiStart(args.start) if args.start else None
    nuclei = NucleiRun(args.run_folder, data, args.preset, config, loop, args.encoder_weights, start)
    if not args.all_images:
        nuclei.check_held_out()
    train_folds(args, nuclei)
    return 0
