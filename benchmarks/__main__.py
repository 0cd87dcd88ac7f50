"""The yardstick: the detector beside the plain way of doing the same, in one process, alternating.

    python -m benchmarks [--weights DIR] [--input DIR] [--pairs 1 4 16] [--views 8 4 2 1] [--json FILE]

prints a Markdown table: seconds a pair, how many times as long the plain way takes, with and without the
search for peaks, share of time in the networks, arithmetic as a share of the machine's own measured peak,
peak memory, and how far the points agree. `--paper-size` measures DeepLabV3+ networks with ResNet50 and
random weights instead of a model (needs the `train` extra); there the points mean nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks.agreement import Agreement
from benchmarks.machine import best_rates, operations
from benchmarks.plain import PlainDetector
from softctm.detector import Detector
from softctm.errors import ModelError
from softctm.model import CELL_CLASSES, Model, find_weights, load_model
from softctm.pair import CellTissuePair
from softctm.points import CellPoints
from softctm.processors import available_processors
from softctm.readers import PairSource, open_pairs
from softctm.runtime import Runtime

ROOT = Path(__file__).resolve().parents[1]
PLAIN = "plain"


@dataclass
class Measurement:
    """Totals of one way over its pairs; seconds of wall time."""

    way: str
    views: int
    pairs: int = 0
    seconds: float = 0.0
    seconds_in_networks: float = 0.0
    seconds_in_peaks: float = 0.0
    agreement: Agreement = field(default_factory=Agreement)

    @property
    def seconds_a_pair(self) -> float:
        """Wall time of a pair, decoding included."""
        return self.seconds / self.pairs


def main() -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, help="model folder (default: the detector's own)")
    parser.add_argument("--paper-size", action="store_true", help="random ResNet50 networks instead")
    parser.add_argument("--input", type=Path, default=ROOT / "test/input", help="pairs, used again as needed")
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 4, 16], help="pairs in a run")
    parser.add_argument("--views", type=int, nargs="+", default=[8, 4, 2, 1], choices=[1, 2, 4, 8])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = _paper_size(Path(scratch)) if args.paper_size else _weights(args.weights)
        model, source = load_model(folder), open_pairs(args.input)
        if args.memory_of:
            _open(args.memory_of, model, 1, args.device)(source.read(0))
            # Not getrusage's figure: a process inherits that from the one that started it.
            status = Path("/proc/self/status").read_text().splitlines()
            print(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
            return 0
        report = measure(args, model, source)
        report["peak_memory_mb"] = {way: _peak_memory(way, folder, args) for way in (PLAIN, "detector")}
    print(table(report))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def measure(args: argparse.Namespace, model: Model, source: PairSource) -> dict[str, Any]:
    """Run every way on every number of pairs; the ways take turns pair by pair."""
    runtime = Runtime(args.device)
    ways: dict[tuple[str, int], Any] = {(PLAIN, 8): _open(PLAIN, model, 8, runtime.device)}
    for views in args.views:
        ways["detector", views] = _open("detector", model, views, runtime.device)
    for way in ways.values():
        way(source.read(0))  # the first pair also pays for memory and for the choice of algorithms
    rates = best_rates(runtime)
    cost = {
        stage: sum(operations(network.read()) for network in networks)
        for stage, networks in (("tissue", model.tissue.networks), ("cells", model.cell.networks))
    }
    runs = []
    for count in args.pairs:
        rows = {key: Measurement(*key) for key in ways}
        for index in range(count):
            expected: CellPoints | None = None
            for key, way in ways.items():
                points = _timed(way, lambda: source.read(index % len(source)), rows[key])  # noqa: B023
                expected = points if expected is None else expected
                rows[key].agreement.add(expected, points)
        runs.append({"pairs": count, "ways": list(_rows(rows, sum(cost.values()), max(rates.values())))})
    return {
        "model": model.name,
        "networks": {"tissue": len(model.tissue.networks), "cells": len(model.cell.networks)},
        "device": runtime.device,
        "processors": available_processors(),
        "processor": platform.processor() or platform.machine(),
        "onnxruntime": onnxruntime.__version__,
        "operations_a_view": cost,
        "machine_operations_a_second": rates,
        "runs": runs,
    }


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    best = max(report["machine_operations_a_second"].values()) / 1e9
    lines = [
        f"Model {report['model']}, {report['networks']['tissue']} tissue and "
        f"{report['networks']['cells']} cell networks, {report['device']}, "
        f"{report['processors']} processors, ONNX Runtime {report['onnxruntime']}; "
        f"machine's measured peak {best:.0f} GFLOP/s",
        "",
        "| pairs | way | views | s a pair | times plain | without peaks | in networks | of peak "
        "| same cells | class flips | score off by |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in report["runs"]:
        for row in run["ways"]:
            lines.append(
                f"| {run['pairs']} | {row['way']} | {row['views']} | {row['seconds_a_pair']:.2f} "
                f"| {row['times_plain']:.2f} | {row['times_plain_without_peaks']:.2f} "
                f"| {row['share_in_networks']:.1%} | {row['share_of_machine_peak']:.0%} "
                f"| {row['same_cells']:.2%} | {row['agreement']['class_flips']} "
                f"| {row['agreement']['largest_score_difference']:.1g} |"
            )
    memory = ", ".join(f"{way} {megabytes} MB" for way, megabytes in report["peak_memory_mb"].items())
    return "\n".join([*lines, "", f"Peak memory of a process that does one pair: {memory}."])


def _rows(rows: dict[tuple[str, int], Measurement], cost: int, best_rate: float) -> Iterator[dict[str, Any]]:
    plain = rows[PLAIN, 8]
    without = (plain.seconds - plain.seconds_in_peaks) / plain.pairs
    for row in rows.values():
        seconds = row.seconds_a_pair
        yield {
            **asdict(row),
            "seconds_a_pair": seconds,
            "times_plain": plain.seconds_a_pair / seconds,
            "times_plain_without_peaks": without / ((row.seconds - row.seconds_in_peaks) / row.pairs),
            "share_in_networks": row.seconds_in_networks / row.seconds,
            "share_of_machine_peak": cost * row.views / seconds / best_rate,
            "same_cells": row.agreement.share,
        }


def _timed(way: Detector | PlainDetector, read: Callable[[], CellTissuePair], row: Measurement) -> CellPoints:
    """One pair, from reading it to its points."""
    in_networks, in_peaks = way.seconds_in_networks, way.seconds["peaks"]
    start = time.perf_counter()
    points = way(read())
    row.seconds += time.perf_counter() - start
    row.pairs += 1
    row.seconds_in_networks += way.seconds_in_networks - in_networks
    row.seconds_in_peaks += way.seconds["peaks"] - in_peaks
    return points


def _open(way: str, model: Model, views: int, device: str) -> Detector | PlainDetector:
    if way == PLAIN:
        return PlainDetector(model, device="cuda" if device == "cuda" else "cpu", views=views)
    return Detector(model, device=device, views=views)  # type: ignore[arg-type]


def _peak_memory(way: str, folder: Path, args: argparse.Namespace) -> int:
    """Largest resident memory, MB, of a process that does one pair in this way."""
    # On a processor views come one after the other, so that their number does not matter.
    command = [sys.executable, "-m", "benchmarks", "--memory-of", way, "--weights", str(folder)]
    command += ["--input", str(args.input), "--device", args.device]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _weights(flag: Path | None) -> Path:
    """The model folder; without a model, the hand-set networks that the tests use."""
    try:
        return find_weights(flag)
    except ModelError:
        if flag is not None:
            raise
        return ROOT / "test/hand_set"


def _paper_size(folder: Path) -> Path:
    """Networks of the paper's size with random weights: one for tissue, five for cells."""
    from softctm.networks.deeplab import DeepLab, NetworkSpec
    from softctm.training.export import export_network

    manifest: dict[str, Any] = {"schema_version": 1, "name": "random ResNet50"}
    stages = (("tissue", 1, 0, ["background", "cancer"], 0.8), ("cell", 5, 2, list(CELL_CLASSES), 0.2))
    for stage, count, context, classes, mpp in stages:
        files = [folder / f"{stage}_fold{fold}.onnx" for fold in range(count)]
        for path in files:
            export_network(DeepLab(NetworkSpec("resnet50", 5, 256, context, len(classes), 1)), path)
        networks = [
            {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in files
        ]
        manifest[stage] = {"networks": networks, "input_size": 1024, "mpp": mpp}
        manifest[stage] |= {"classes": classes, "output": "logits"}
    (folder / "model.json").write_text(json.dumps(manifest))
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
