"""A model's int8 networks beside its 32-bit ones: time of a pass and of a pair, and agreement.

    python -m benchmarks.int8 [--weights DIR] [--input DIR] [--views 8] [--repeats 10]

prints a Markdown table. Times are of the processor, not of the clock, on one thread, so that other work on
the machine matters little; the two take turns. What 8 bits cost in mean F1 is told by
`softctm validate`, once with each `--precision`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.agreement import Agreement
from softctm.choices import VIEW_COUNTS
from softctm.inference.detector import Detector
from softctm.model import Model, find_weights, load_model
from softctm.ort.runtime import Runtime
from softctm.points import CellPoints
from softctm.readers import open_pairs

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, help="the model (default: model_weights)")
    parser.add_argument("--input", type=Path, default=ROOT / "test/input", help="pairs (default: test/input)")
    parser.add_argument("--views", type=int, choices=VIEW_COUNTS, default=8, help="(default: 8)")
    parser.add_argument("--repeats", type=int, default=10, help="passes of each network (default: 10)")
    args = parser.parse_args()
    # Before any session is opened: each then has one thread, whose time is the process's.
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    model = load_model(find_weights(args.weights))
    models = [model.in_precision("float32"), model.in_precision("int8")]
    print("| | float32 | int8 | ratio |\n| --- | --- | --- | --- |")
    for name in ("tissue", "cells"):
        _row(f"{name} network, ms a pass", [1e3 * s for s in passes(models, name, args.repeats)], "{:.1f}")
    seconds, agreement = pairs(models, args.input, args.views)
    _row(f"pair at {args.views} views, s", seconds, "{:.2f}")
    _row("networks of the detector, MB", [_megabytes(model) for model in models], "{:.1f}")
    print(
        f"\nProcessor time, one thread; the same cells: {agreement.share:.2%} of {agreement.expected}, "
        f"{agreement.class_flips} with another class, scores off by {agreement.largest_score_difference:.2g} "
        "at most."
    )
    return 0


def passes(models: list[Model], kind: str, repeats: int) -> list[float]:
    """Median processor seconds of a pass of each model's first network of a stage; they take turns."""
    networks = [model.stages[kind].networks[0] for model in models]
    runtime = Runtime("cpu")
    sessions = [runtime.network(network.parse(), network.path.name) for network in networks]
    channels = sessions[0].inputs[0].shape[1] or 3
    image = np.random.default_rng(0).random((1, channels, 1024, 1024), np.float32)
    calls = [partial(session, runtime.value(image)) for session in sessions]
    return [median(times) for times in _alternating(calls, repeats)]


def pairs(models: list[Model], folder: Path, views: int) -> tuple[list[float], Agreement]:
    """Mean processor seconds of a pair with each model, and how far their points agree."""
    source = open_pairs(folder)
    detectors = [Detector(model, device="cpu", views=views) for model in models]
    seconds, agreement = np.zeros(len(models)), Agreement()
    for number in range(len(source)):
        pair = source.read(number)
        points: list[CellPoints] = []
        for index, detector in enumerate(detectors):
            start = time.process_time()
            points.append(detector(pair))
            seconds[index] += time.process_time() - start
        agreement.add(*points)
    return list(seconds / len(source)), agreement


def _alternating(calls: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Processor seconds of each call, all in turn; the first round, which sets memory up, is left out."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, own in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            if turn:
                own.append(time.process_time() - start)
    return times


def _row(name: str, values: list[float], form: str) -> None:
    before, after = (form.format(value) for value in values)
    print(f"| {name} | {before} | {after} | {values[0] / values[1]:.2f} |", flush=True)


def _megabytes(model: Model) -> float:
    return sum(network.path.stat().st_size for network in model.networks) / 1e6


if __name__ == "__main__":
    raise SystemExit(main())
