"""`softctm report`: make a self-contained HTML page of predictions."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from softctm.commands.resample_options import add_resamples
from softctm.commands.shared_options import add_overwrite
from softctm.commands.truth_options import add_truth_options, predictions_of, short_names, truth_of
from softctm.errors import UsageError
from softctm.extras import require
from softctm.progress import counted
from softctm.storage.files import (
    beginning_of,
    prepare_folder,
    refuse_foreign_files,
    write_bytes_atomically,
)
from softctm.terminal.console import show

_GENERATOR = b'<meta name="generator" content="softctm'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("out", type=Path, metavar="OUT.html", help="page to write")
    parser.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="cell_classification.json; the page is about the first, further ones are ranked against it",
    )
    parser.add_argument(
        "--input",
        type=Path,
        metavar="DIR",
        help="the images, in any layout that predict reads (default: those of --truth, if it is a release)",
    )
    add_truth_options(parser, required=False)
    add_overwrite(parser)
    parser.add_argument(
        "--tissue", type=Path, metavar="DIR", help="predicted tissue maps, NAME.png or NAME.npy for each pair"
    )
    parser.add_argument(
        "--each",
        type=int,
        default=3,
        metavar="N",
        help="how many worst, median and best pairs to view (default: 3; at most 0.75 MB a pair)",
    )
    add_resamples(parser)
    parser.add_argument(
        "--title", metavar="TEXT", help="heading of the page (default: the predictions' name)"
    )


def run(args: argparse.Namespace) -> int:
    """Read, evaluate, draw, write, and say where."""
    require("jinja2", "markupsafe", "matplotlib")
    from softctm.report.build import build_report
    from softctm.report.collect import collect, name_pairs, open_images

    names = short_names(args.predictions)
    _check(args)
    prepare_folder(args.out.parent)
    refuse_foreign_files([args.out], "report", is_own_page, args.overwrite)
    truth = None
    if args.truth is not None:
        # With a cell_gt.json, --subset is about the images alone.
        subset = args.subset if args.truth.is_dir() else None
        truth = truth_of(argparse.Namespace(**{**vars(args), "subset": subset}))
    source = open_images(args.input, args.truth, args.subset)
    pairs, order = name_pairs(truth, source)
    predictions = [predictions_of(path, len(pairs)) for path in args.predictions]
    given = collect(
        args.predictions,
        names,
        predictions,
        pairs,
        args.truth,
        tissue=args.tissue,
        resamples=args.resamples,
    )
    if args.title is not None:
        given = replace(given, title=args.title)
    page = build_report(replace(given, source=source, source_index=order, each=args.each))
    data = page.encode("utf-8", errors="replace")
    write_bytes_atomically(args.out, data)
    show(f"{args.out}: {counted(len(pairs), 'pair')}, {len(data) / 1e6:.1f} MB")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse options that do not fit each other."""
    if args.truth is None and args.input is None:
        raise UsageError("give --input with the images, --truth with the annotations, or both")
    if args.truth is None and args.ids is not None:
        raise UsageError("--ids are those of the annotations, which --truth names")
    if args.truth is None and len(args.predictions) > 1:
        raise UsageError("several --predictions are ranked by their score, which takes --truth")
    if args.each < 1:
        raise UsageError(f"--each must be at least 1, not {args.each}")
    if len(args.predictions) > 1 and not args.resamples:
        raise UsageError("--resamples 0: several --predictions are ranked, which takes 2 or more")


def is_own_page(path: Path) -> bool:
    """Whether this command wrote a page: it names its generator."""
    return _GENERATOR in beginning_of(path)
