"""`softctm validate`: the out-of-fold table of a model, from its stored networks and folds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from softctm.choices import VIEW_COUNTS, DeviceChoice, Precision
from softctm.commands.shared_options import add_overwrite, add_release, load_pairs
from softctm.errors import UsageError
from softctm.storage.files import prepare_folder, refuse_foreign_files
from softctm.storage.text_files import is_json_with
from softctm.terminal.console import ConsoleProgress, show


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `softctm validate`."""
    add_release(parser, "the OCELOT release that the model was trained on")
    parser.add_argument("--weights", type=Path, help="the model's folder (default: model_weights)")
    parser.add_argument("--views", type=int, choices=VIEW_COUNTS, default=8, help="(default: 8)")
    parser.add_argument("--device", choices=get_args(DeviceChoice), default="auto", help="(default: auto)")
    parser.add_argument(
        "--precision", choices=get_args(Precision), default="float32", help="(default: float32)"
    )
    parser.add_argument("--fold", type=int, action="append", help="predict this fold only (may be repeated)")
    parser.add_argument(
        "--work", type=Path, help="keep the counts of every fold here, and use those that are up to date"
    )
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument(
        "--update", action="store_true", help="write scores and the best rule into the model's model.json"
    )
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Predict every fold, choose rules crosswise, print the table."""
    from softctm.jobs.validation import prepare_validation, table, update_manifest
    from softctm.model import find_weights, load_model
    from softctm.model.tasks import OF_PAIRS
    from softctm.storage.files import write_json_atomically

    model = load_model(find_weights(args.weights)).of_task(*OF_PAIRS).in_precision(args.precision)
    validation = prepare_validation(
        model,
        load_pairs(args),
        args.data,
        views=args.views,
        device=args.device,
        work=args.work,
        progress=ConsoleProgress(),
    )
    if args.fold:
        if args.json or args.update:
            raise UsageError("--fold: only counts; give --json and --update in the last run, without it")
        if args.work is None:
            raise UsageError("--fold: has no use without --work, which keeps the fold's counts")
        if absent := set(args.fold) - set(validation.fold_of):
            raise UsageError(f"--fold {min(absent)}: {args.data} holds no pair of it")
        for fold in args.fold:
            validation.counts(fold)
        show(f"folds {args.fold} are counted; run again without --fold for the table")
        return 0
    if args.update and len(validation.pairs) < len(validation.folds.of_pair):
        raise UsageError("--update: needs all pairs of the model's folds, or its scores would be of a part")
    # What cannot be written is better told now than after hours.
    if args.json:
        refuse_foreign_files(
            [args.json], "validate", lambda path: is_json_with(path, "views", "rules"), args.overwrite
        )
        prepare_folder(args.json.parent)
    if args.update:
        prepare_folder(model.folder)
    figures = {"views": args.views, **validation.outcome().to_json()}
    show(table(figures), is_result=not (args.json or args.update))
    if args.json:
        write_json_atomically(args.json, figures, indent=1)
    if args.update:
        update_manifest(model, figures)
    return 0
