"""`softctm quantize`: int8 networks for a model, which processors run several times as fast."""

from __future__ import annotations

import argparse
from pathlib import Path

from softctm.errors import InputError, UsageError
from softctm.terminal.console import ConsoleProgress, show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm quantize`."""
    parser.add_argument("--weights", type=Path, help="the model's folder (default: model_weights)")
    parser.add_argument(
        "--calibrate",
        type=Path,
        required=True,
        help="pairs of any layout that `predict` reads, best those that the model was trained on; "
        "a network is not shown those of the fold that was held out",
    )
    parser.add_argument("--subset", help="of an OCELOT release (default: the only one there is)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace int8 networks that the model has already"
    )
    parser.add_argument("--pairs", type=int, default=8, help="to calibrate each network on (default: 8)")


def run(args: argparse.Namespace) -> int:
    """Quantize every network of the model and say how far each is off."""
    from softctm.jobs.model_quantization import quantize_model
    from softctm.model import find_weights, load_model
    from softctm.readers import open_pairs

    if args.pairs < 1:
        raise UsageError(f"--pairs {args.pairs}: at least 1 is needed")
    if not args.calibrate.is_dir():
        raise InputError(f"{args.calibrate}: no such folder; give one with pairs to --calibrate")
    model = load_model(find_weights(args.weights)).of_task("cell-points")
    source = open_pairs(args.calibrate, args.subset)
    differences = quantize_model(
        model, source, args.pairs, overwrite=args.overwrite, progress=ConsoleProgress()
    )
    for file, difference in differences.items():
        show(
            f"{file}: probabilities off by {difference.mean:.4f} on average, {difference.largest:.3f} at "
            f"most; {difference.same_class:.2%} of the pixels keep their class"
        )
    show(f"{model.folder}: int8 networks added; `softctm validate --precision int8 --update` scores them")
    return 0
