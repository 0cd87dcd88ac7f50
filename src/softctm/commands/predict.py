"""`softctm predict`: find cells in paired patches and write the challenge's JSON."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import get_args

from softctm.choices import VIEW_COUNTS, DeviceWish, Precision
from softctm.jobs.options import QUALITIES, JobOptions
from softctm.jobs.pairs import run_job
from softctm.progress import write_line
from softctm.writers.viewers import FORMATS


def configure(
    parser: argparse.ArgumentParser, input_dir: Path | None = None, output_dir: Path | None = None
) -> None:
    """Add the options of the job; without defaults for the folders, they must be given."""
    parser.add_argument(
        "--input",
        type=Path,
        default=input_dir,
        required=input_dir is None,
        metavar="DIR",
        help="patch folders, stacked images, an OCELOT release or Grand Challenge sockets"
        + (f" (default: {input_dir})" if input_dir else ""),
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=output_dir,
        required=output_dir is None,
        metavar="DIR",
        help="where cell_classification.json and run.json go"
        + (f" (default: {output_dir})" if output_dir else ""),
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="model folder (default: $SOFTCTM_WEIGHTS, else /opt/ml/model if it is one, else model_weights)",
    )
    parser.add_argument(
        "--device",
        choices=get_args(DeviceWish),
        default="auto",
        help="default: auto, CUDA where there is one",
    )
    parser.add_argument(
        "--quality",
        choices=tuple(QUALITIES),
        default="full",
        help="passes a pair: "
        + ", ".join(
            f"{name} {quality.views} views × {quality.cell_networks or 'all'} cell networks"
            for name, quality in QUALITIES.items()
        )
        + " (default: full)",
    )
    parser.add_argument(
        "--views",
        type=int,
        choices=VIEW_COUNTS,
        help="flips and turns to average over (default: the quality's)",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="float32",
        help="what the networks compute in (default: float32); float16 needs tensor cores to pay",
    )
    parser.add_argument("--subset", metavar="NAME", help="subset of an OCELOT release, such as train")
    parser.add_argument(
        "--also",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="LIST",
        help=f"further files a pair, separated by commas: {', '.join(FORMATS)}",
    )
    parser.add_argument(
        "--allow-partial", action="store_true", help="exit with 0 although some pairs failed and are missing"
    )


def job_options(args: argparse.Namespace) -> JobOptions:
    """The options that `configure` added, checked."""
    return JobOptions(
        weights=args.weights,
        device=args.device,
        quality=args.quality,
        views=args.views,
        precision=args.precision,
        subset=args.subset,
        allow_partial=args.allow_partial,
        also=args.also,
        debug=args.debug,
    )


def run(args: argparse.Namespace) -> int:
    """Run the job; an interruption or SIGTERM still writes what is done."""
    with _interrupted_by_sigterm():
        result = run_job(args.input, args.output, job_options(args))
    write_line(f"wrote {result.summary}", sys.stdout)
    return 0


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, which ends a container, do what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
