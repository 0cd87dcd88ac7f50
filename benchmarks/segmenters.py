"""How well nuclei are outlined from their points: the classical segmenter and point-guided networks.

    python -m benchmarks.segmenters --data consep=CONSEP --data monuseg=MONUSEG --run RUN [--fold 0 …]

RUN is a run of `softctm train points`. The images of each fold are shown to the network that never saw them,
at 0.2 µm per pixel; both segmenters get the same points, one near the center of every annotated nucleus. A
nucleus's IoU is that of its annotated mask with the mask of its own point. Intervals of the difference are
95 %, from resamples of images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.commands.shared_options import add_image_data, load_image_data
from softctm.errors import TrainingError
from softctm.evaluation.bootstrap import Bootstrap, percentile_interval
from softctm.points import CellPoints
from softctm.training.loop import LoopConfig
from softctm.training.nuclei.data import TrainingImage
from softctm.training.point_guided.data import inner_points
from softctm.training.point_guided.run import PointGuidedRun
from softctm.training.point_guided.task import COMPACT
from softctm.training.segmenters import ClassicalSegmenter, NucleusSegmenter, PointGuidedSegmenter


@dataclass
class Measured:
    """IoU of every nucleus of every image by one segmenter, and the seconds it took."""

    images: list[str] = field(default_factory=list)
    overlaps: list[NDArray[np.float64]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, image: TrainingImage, segment: NucleusSegmenter) -> None:
        """Segment the nuclei of one image from points that depend on its name alone."""
        seed = [ord(letter) for letter in image.name]
        ids, y, x = (
            part.astype(np.int32) for part in inner_points(image.instances, np.random.default_rng(seed))
        )
        points = CellPoints(x, y, np.ones(len(ids), np.uint8), np.ones(len(ids), np.float32))
        began = time.perf_counter()
        found = segment(image.image, points)
        self.seconds += time.perf_counter() - began
        self.images.append(image.name)
        self.overlaps.append(overlap_of_each(found, image.instances, ids))

    def sums(self, dataset: str) -> NDArray[np.float64]:
        """A row an image of a dataset: nuclei, sum of their IoU, number above 0.5 and above 0.7."""
        chosen = [
            own
            for name, own in zip(self.images, self.overlaps, strict=True)
            if name.startswith(f"{dataset}/")
        ]
        return np.array([[len(own), own.sum(), (own > 0.5).sum(), (own > 0.7).sum()] for own in chosen])


def overlap_of_each(
    found: NDArray[np.int32], true: NDArray[np.int32], ids: NDArray[np.int32]
) -> NDArray[np.float64]:
    """IoU of mask i + 1 of `found` with mask `ids[i]` of `true`, (N,)."""
    number = np.zeros(int(true.max(initial=0)) + 1, np.int64)
    number[ids] = np.arange(1, len(ids) + 1)
    own = number[true]
    count = len(ids) + 1
    both = np.bincount(found[found == own], minlength=count)
    sizes = np.bincount(found.ravel(), minlength=count) + np.bincount(own.ravel(), minlength=count)
    overlap: NDArray[np.float64] = both[1:] / np.maximum(sizes - both, 1)[1:]
    return overlap


def rows_of(dataset: str, measured: dict[str, Measured]) -> list[str]:
    """The table's rows for one dataset."""
    sums = {name: own.sums(dataset) for name, own in measured.items()}
    first, *_, last = sums.values()
    images, nuclei = len(first), int(first[:, 0].sum())
    rows = []
    for name, own in sums.items():
        _, *means = own.sum(0) / nuclei
        shown = " | ".join(f"{value:.3f}" for value in means)
        rows.append(f"| {dataset} | {images} | {nuclei:,} | {name} | {shown} |  |")
    both = Bootstrap(images).sums(np.stack([first, last], 1))
    low, high = percentile_interval(both[:, 1, 1] / both[:, 1, 0] - both[:, 0, 1] / both[:, 0, 0])
    difference = (last[:, 1].sum() - first[:, 1].sum()) / nuclei
    rows[-1] = rows[-1].removesuffix(" |") + f"{difference:+.3f} [{low:+.3f}, {high:+.3f}] |"
    return rows


def measure(run: PointGuidedRun, folds: Sequence[int]) -> dict[str, Measured]:
    """Both segmenters on the images of these folds."""
    measured = {"classical": Measured(), "points": Measured()}
    for fold in folds:
        path = run.segmenter(fold)
        if not path.is_file():
            raise TrainingError(f"{path}: is not there yet; run `softctm train points --fold {fold}` first")
        ways: dict[str, NucleusSegmenter] = {
            "classical": ClassicalSegmenter(), "points": PointGuidedSegmenter(path),
        }  # fmt: skip
        for image, own in zip(run.images, run.fold_of(), strict=True):
            for name, segment in ways.items() if own == fold else ():
                measured[name].add(image, segment)
    return measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_image_data(parser)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--fold", type=int, action="append", help="(may be repeated; default: every fold)")
    args = parser.parse_args()
    run = PointGuidedRun(args.run, load_image_data(args.data), COMPACT, LoopConfig())
    measured = measure(run, args.fold or sorted(set(run.fold_of())))
    print(
        "| data | images | nuclei | segmenter | mean IoU | IoU > 0.5 | IoU > 0.7 | difference of the mean |"
    )
    print("| --- " * 8 + "|")
    for dataset in run.data:
        print("\n".join(rows_of(dataset, measured)))
    for name, own in measured.items():
        nuclei = sum(len(part) for part in own.overlaps)
        print(f"{name}: {own.seconds / nuclei * 1000:.1f} ms a nucleus")


if __name__ == "__main__":
    main()
