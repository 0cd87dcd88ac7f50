"""How many worker processes feed training best here: seconds a step, side by side.

    python -m benchmarks.feeding [--preset compact] [--workers 0 1 2] [--steps 20] [--rounds 3]

Trains the preset's cell network on random patches; no data needed. Rounds alternate between the numbers of
workers, so that none has the quieter machine; the median of the rounds is printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from softctm.networks.network_table import build_network
from softctm.training.arrays import TrainingArrays
from softctm.training.config import TaskConfig
from softctm.training.crops import CropDataset
from softctm.training.feeding import feed_from
from softctm.training.loop import LoopConfig, train
from softctm.training.losses import cell_loss
from softctm.training.presets import PRESETS
from softctm.training.sampling import draw

_PATCHES = 16
_OF_CELL_PATCHES = sorted(name for name, preset in PRESETS.items() if not preset.cells.sees_pair)


def seconds_a_step(config: TaskConfig, workers: int, steps: int) -> float:
    """Wall-clock seconds of one step, start and end of the workers included."""
    side = 1024 // config.stored_downsampling
    random, tissue = np.random.default_rng(0), config.network.context_channels
    arrays = TrainingArrays(
        random.integers(0, 256, (_PATCHES, 3, side, side), np.uint8),
        random.integers(0, 127, (_PATCHES, 2, side, side), np.uint8),
        np.ones((_PATCHES, 2)),
        random.random((_PATCHES, 2, side, side), np.float32).astype(np.float16) if tissue else None,
    )
    crop = config.augmentation.crop // config.network.downsampling // 16 * 16
    crops = CropDataset(arrays, config.augmentation, crop, 1, seed=0)
    weights = np.full(_PATCHES, 1 / _PATCHES)
    batch = config.optimizer.batch
    feed = feed_from(crops, lambda step: draw(weights, batch, 0, step), workers)
    network = build_network(config.network)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        once = replace(config.optimizer, epochs=1)
        train(network, feed, cell_loss(config.target), steps, once, LoopConfig(), Path(folder))
        return (time.perf_counter() - start) / steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", choices=_OF_CELL_PATCHES, default="compact")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    seconds: dict[int, list[float]] = {workers: [] for workers in args.workers}
    for _ in range(args.rounds):
        for workers in args.workers:
            seconds[workers].append(seconds_a_step(PRESETS[args.preset].cells, workers, args.steps))
    print("| workers | s a step |\n| --- | --- |")
    for workers, measured in seconds.items():
        print(f"| {workers} | {statistics.median(measured):.3f} |")


if __name__ == "__main__":
    main()
