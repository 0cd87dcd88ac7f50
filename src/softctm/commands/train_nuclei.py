"""`softctm train nuclei`: one network a fold, or one of all images, resuming where it stopped."""

from __future__ import annotations

import argparse

from softctm.commands.nuclei_run_options import add_nuclei_run, open_all
from softctm.errors import UsageError
from softctm.extras import require_extra

_FOLDS = 5
_PRESETS = ("cellvit-256", "compact")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm train nuclei`."""
    add_nuclei_run(parser)
    parser.add_argument("--preset", choices=_PRESETS, default="compact", help="recipe (default: compact)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
        help="change one value of the preset, such as optimizer.epochs=20 (may be repeated)",
    )  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--fold", type=int, help="train this fold only (default: every fold)")
    which.add_argument("--all-images", action="store_true", help="train one network that holds out nothing")
    parser.add_argument("--folds", type=int, default=_FOLDS, help=f"number of folds (default: {_FOLDS})")
    parser.add_argument("--seed", type=int, default=0, help="of folds and training (default: 0)")
    parser.add_argument(
        "--encoder-weights", metavar="FILE|NAME",
        help="initialization of the encoder: safetensors, a name such as imagenet, or for CellViT a file of "
        "DINO or SAM (default: random)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("bfloat16", "float32"), default="bfloat16", help="(default: bfloat16)"
    )
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=2.0, help="between checkpoints (default: 2)"
    )
    parser.add_argument(
        "--validate-epochs", type=int, default=2, help="between validations; 0: never (default: 2)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that prepare batches (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Train what was asked for."""
    require_extra("train")
    from softctm.training.config import with_settings
    from softctm.training.loop import LoopConfig
    from softctm.training.nuclei_config import NUCLEI_PRESETS
    from softctm.training.nuclei_run import NucleiRun

    if args.workers < 0:
        raise UsageError(f"--workers {args.workers}: must be 0 or more")
    loop = LoopConfig(
        args.seed, args.checkpoint_minutes, args.validate_epochs, args.precision == "bfloat16", args.workers
    )
    config = with_settings(NUCLEI_PRESETS[args.preset], args.settings)
    nuclei = NucleiRun(args.run_folder, open_all(args.data), args.preset, config, loop, args.encoder_weights)
    nuclei.prepare(args.folds, args.seed)
    folds = [args.fold] if args.fold is not None else sorted(set(nuclei.fold_of()))
    for fold in [None] if args.all_images else folds:
        nuclei.train(fold)
    return 0
