"""The yardstick: the detector beside the baseline of doing the same, in one process, in turns.

    python -m benchmarks [--weights DIR | --size resnet18|resnet50] [--pairs 1 4 16] [--views 8 4 2 1]
                         [--precision float32 float16] [--device auto|cpu|cuda] [--input DIR] [--json FILE]

prints a Markdown table: seconds a pair, how many times as long the baseline takes, with and without the
search for peaks, share of time in the networks, arithmetic as a share of the machine's own measured peak,
how far maps and points are from the baseline's, and peak memory, host and device. Progress goes to stderr.

`--size` measures DeepLabV3+ networks with random weights at full resolution instead of a model (needs the
`train` extra to make them): the paper's ResNet50, or ResNet18 up to layer3. There the points mean nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import onnxruntime

from benchmarks.machine import (
    best_rates,
    device_memory_in_use,
    host_memory_peak,
    memory_estimate,
    operations,
)
from benchmarks.random_model import SIZES, write_random_model
from benchmarks.table import rows_of, table
from benchmarks.timing import Way, say, take_turns, warm_up
from softctm.choices import VIEW_COUNTS, Precision
from softctm.errors import ModelError
from softctm.model import Model, find_weights, load_model
from softctm.ort.processors import available_processors
from softctm.ort.runtime import Device, Runtime
from softctm.readers import PairSource, open_pairs

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Measure, print the table, write the JSON."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_random_model(Path(scratch), args.size) if args.size else _weights(args.weights)
        model, source = load_model(folder), open_pairs(args.input)
        device = Runtime(args.device).device
        if args.memory_of:
            way = Way(args.memory_of, args.views[0], args.precision[0])
            print(json.dumps(_memory_here(way, model, source, device)))
            return 0
        report = _measured(args, model, source, device)
        report["peak_memory_mb"] = {}
        for way in _memory_ways(args, device):
            say(f"memory: {way}")
            report["peak_memory_mb"][str(way)] = _memory_of(way, folder, args)
    print(table(report))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    networks = parser.add_mutually_exclusive_group()
    networks.add_argument("--weights", type=Path, help="model folder (default: the detector's own)")
    networks.add_argument("--size", choices=tuple(SIZES), help="random networks of this encoder instead")
    parser.add_argument("--input", type=Path, default=ROOT / "test/input", help="pairs, used again as needed")
    parser.add_argument(
        "--pairs", type=int, nargs="+", help="pairs in a run (default: 1 4 16; with --size 1)"
    )
    parser.add_argument(
        "--views", type=int, nargs="+", choices=VIEW_COUNTS, help="(default: 8 4 2 1; with --size 8 1)"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=get_args(Precision),
        help="(default: float32; on CUDA float16 as well)",
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.pairs = args.pairs or ([1] if args.size else [1, 4, 16])
    args.views = args.views or ([8, 1] if args.size else [8, 4, 2, 1])
    return args


def _measured(args: argparse.Namespace, model: Model, source: PairSource, device: Device) -> dict[str, Any]:
    """Run every way on every number of pairs."""
    precisions: tuple[Precision, ...] = args.precision or (
        ("float32",) if device == "cpu" else ("float32", "float16")
    )
    ways = [Way("baseline", 8), *([Way("baseline, TF32", 8)] if device == "cuda" else [])]
    ways += [Way("detector", views, precision) for precision in precisions for views in args.views]
    detectors = {way: way.open(model, device) for way in ways}
    differences = warm_up(detectors, source.read(0))
    say("measuring the machine's peak")
    runtime = Runtime(device)
    rates = {kind: best_rates(runtime, kind) for kind in dict.fromkeys(w.arithmetic(device) for w in ways)}
    stages = {"tissue": model.tissue.networks, "cells": model.cells.networks}
    contents = {stage: [network.read() for network in networks] for stage, networks in stages.items()}
    cost = {stage: sum(map(operations, networks)) for stage, networks in contents.items()}
    every = [network for networks in contents.values() for network in networks]
    runs = []
    for count in args.pairs:
        rows = take_turns(detectors, source, count)
        runs.append({"pairs": count, "ways": rows_of(rows, differences, sum(cost.values()), rates, device)})
    return {
        "model": model.name,
        "networks": {stage: len(networks) for stage, networks in stages.items()},
        "device": device,
        "processors": available_processors(),
        "processor": platform.processor() or platform.machine(),
        "onnxruntime": onnxruntime.__version__,
        "operations_a_view": cost,
        "machine_operations_a_second": rates,
        "estimated_device_memory_mb": {
            kind: round(memory_estimate(every, 8, kind) / 1e6) for kind in ("float32", "float16")
        },
        "runs": runs,
    }


def _memory_ways(args: argparse.Namespace, device: Device) -> list[Way]:
    """The ways whose memory differs: a processor computes both precisions in 32 bits."""
    if device == "cpu":
        return [Way("baseline", 8), Way("detector", 8)]
    precisions: tuple[Precision, ...] = args.precision or ("float32", "float16")
    return [Way("baseline", 8), *(Way("detector", 8, precision) for precision in precisions)]


def _memory_here(way: Way, model: Model, source: PairSource, device: Device) -> dict[str, int | None]:
    """Peak memory, MB, of this process once it has done one pair."""
    before = device_memory_in_use() if device == "cuda" else None
    detector = way.open(model, device)
    detector(source.read(0))
    after = device_memory_in_use() if device == "cuda" else None
    on_device = None if before is None or after is None else after - before
    return {"host": host_memory_peak(), "device": on_device}


def _memory_of(way: Way, folder: Path, args: argparse.Namespace) -> dict[str, int | None]:
    """The same of a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "--memory-of", way.name, "--weights", str(folder)]
    command += ["--input", str(args.input), "--device", args.device]
    command += ["--views", str(way.views), "--precision", way.precision]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    memory: dict[str, int | None] = json.loads(answer)
    return memory


def _weights(flag: Path | None) -> Path:
    """The model folder; without a model, the hand-set networks that the tests use."""
    try:
        return find_weights(flag)
    except ModelError:
        if flag is not None:
            raise
        return ROOT / "test/hand_set"


if __name__ == "__main__":
    raise SystemExit(main())
