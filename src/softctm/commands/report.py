"""`softctm report`: make a self-contained HTML page of predictions."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from softctm.commands.truth_options import add_truth_options, predictions_of, short_names, truth_of
from softctm.console import show
from softctm.errors import InputError, UsageError
from softctm.evaluation.analysis import evaluate
from softctm.evaluation.bootstrap import RESAMPLES, Bootstrap
from softctm.evaluation.comparison import compare
from softctm.evaluation.predictions import read_json
from softctm.evaluation.scores import count_pairs
from softctm.evaluation.tissue import find_tissue_maps
from softctm.evaluation.truth import TruePair, Truth
from softctm.extras import require
from softctm.files import prepare_folder, write_bytes_atomically
from softctm.points import CellPoints
from softctm.readers import PairSource, open_pairs


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
    parser.add_argument(
        "--resamples",
        type=int,
        default=RESAMPLES,
        metavar="N",
        help=f"bootstrap resamples for the 95 %% intervals, 0 for none (default: {RESAMPLES})",
    )
    parser.add_argument(
        "--title", metavar="TEXT", help="heading of the page (default: the predictions' name)"
    )


def run(args: argparse.Namespace) -> int:
    """Read, evaluate, draw, write, and say where."""
    require("jinja2", "markupsafe", "matplotlib")
    from softctm.report.build import ReportInput, build_report, place_in_source

    names = short_names(args.predictions)
    _check(args)
    prepare_folder(args.out.parent)
    truth = None
    if args.truth is not None:
        # With a cell_gt.json, --subset is about the images alone.
        subset = args.subset if args.truth.is_dir() else None
        truth = truth_of(argparse.Namespace(truth=args.truth, subset=subset, ids=args.ids))
    source = _open_images(args)
    if truth is not None:
        order = place_in_source(truth.names, source) if source is not None else []
        named = _named_like(truth, source, order)
    else:
        assert source is not None
        order = list(range(len(source)))
        named = Truth(tuple(TruePair(name, CellPoints.empty()) for name in source.names), str(args.input))
    predictions = [predictions_of(path, len(named)) for path in args.predictions]
    maps = find_tissue_maps(args.tissue, named) if args.tissue is not None else None
    evaluation = comparison = None
    if truth is not None:
        evaluation = evaluate(
            predictions[0],
            named,
            name=names[0],
            tissue_maps=maps if any(pair.has_tissue for pair in named.pairs) else None,
            resamples=args.resamples,
        )
        if len(predictions) > 1:
            counts = [count_pairs(points, named.points) for points in predictions]
            comparison = compare(names, counts, Bootstrap(len(named), args.resamples))
    facts, warnings = _run_record(args.predictions[0])
    page = build_report(
        ReportInput(
            title=args.title or names[0],
            names=named.names,
            predictions=predictions[0],
            evaluation=evaluation,
            source=source,
            source_index=order,
            tissue_maps=maps or (),
            comparison=comparison,
            facts=[*facts, f"truth: {args.truth.resolve().name}" if truth is not None else "no truth given"],
            warnings=warnings,
            each=args.each,
        )
    )
    data = page.encode("utf-8", errors="replace")
    write_bytes_atomically(args.out, data)
    show(f"{args.out}: {len(named)} pairs, {len(data) / 1e6:.1f} MB")
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
    if args.resamples < (2 if len(args.predictions) > 1 else 0):
        raise UsageError(f"--resamples must be 0 or more, and 2 or more for a ranking, not {args.resamples}")


def _open_images(args: argparse.Namespace) -> PairSource | None:
    """The images of --input, else of a release given as --truth; None where there are none."""
    folder = args.input or (args.truth if (args.truth / "images").is_dir() else None)
    if folder is None:
        return None
    # The subset may be meant for the truth alone: only a release has subsets.
    applies = args.subset is not None and (folder / "images" / args.subset).is_dir()
    if args.subset is not None and not applies and (args.truth is None or not args.truth.is_dir()):
        raise UsageError(f"--subset {args.subset}: {folder} has no images/{args.subset}")
    return open_pairs(folder, args.subset if applies else None)


def _named_like(truth: Truth, source: PairSource | None, order: list[int]) -> Truth:
    """Call pairs what their images are called: a `cell_gt.json` knows only numbers."""
    if source is None:
        return truth
    pairs = (replace(pair, name=source.names[i]) for pair, i in zip(truth.pairs, order, strict=True))
    return Truth(tuple(pairs), truth.source)


def _run_record(predictions: Path) -> tuple[list[str], list[str]]:
    """What a `run.json` beside the predictions tells: the model, and which pairs failed."""
    facts, warnings = [predictions.name], list[str]()
    path = predictions.with_name("run.json")
    try:
        record = read_json(path) if path.is_file() else {}
    except InputError as error:
        return facts, [str(error)]
    model = record.get("model") if isinstance(record, dict) else None
    if not isinstance(model, dict):
        return facts, warnings
    facts.append(" ".join(["model:", *(str(model[key]) for key in ("name", "version") if model.get(key))]))
    failures = record.get("failures")
    for failed in failures if isinstance(failures, list) else []:
        if isinstance(failed, dict):
            # A pair with counts was predicted; only further files of it are missing.
            what = "Incomplete" if "tumor_cells" in failed else "Not predicted, counted as no cells"
            warnings.append(f"{what}: {failed.get('error')}")
    return facts, warnings
