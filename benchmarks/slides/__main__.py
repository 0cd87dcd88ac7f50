"""Measure slides; each command prints Markdown or JSON.

python -m benchmarks.slides speed --data OCELOT [--side 12000] [--quality fast]    both ways side by side
python -m benchmarks.slides memory --data OCELOT      a slide and one of a quarter of its area
python -m benchmarks.slides workers --data OCELOT     1 process, then 1, 2, 4 worker processes
python -m benchmarks.slides area --data OCELOT        how time grows with area
python -m benchmarks.slides glass --data OCELOT       100,000 × 80,000 pixels, mostly glass
python -m benchmarks.slides read SLIDE                MB/s decoded by one core, and resampled
python -m benchmarks.slides pair --data OCELOT        a pair as a slide against the pair
python -m benchmarks.slides shift SLIDE [--mpp X]     white added above and left; seams
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.slides.material import mosaic, pair_as_slide, with_white, write_glass_slide, write_slide
from benchmarks.slides.placement import Cells, agreement, at_seams, cells_of
from benchmarks.slides.speed import WAYS, measured, one, table
from softctm.datasets.ocelot import load_release
from softctm.evaluation.scores import count_pairs, named_scores
from softctm.inference.detector import Detector
from softctm.jobs.slides.engine import load_slide_detector
from softctm.jobs.slides.options import SlideOptions
from softctm.pair import CELL_MPP, PATCH_SIZE
from softctm.points import CellPoints
from softctm.readers import open_pairs
from softctm.slides import open_slide

_MPP = 0.25
_LOSSLESS: dict[str, Any] = {"compression": "zlib", "compressionargs": None}
_OFFSETS = ((2048, 2048), (333, 777), (1001, 5))


@contextmanager
def _slide(data: Path, side: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield write_slide(Path(folder) / f"mosaic-{side}.tif", mosaic(data, side, _MPP), _MPP)


def speed(args: argparse.Namespace) -> None:
    """Both ways, in turns."""
    with _slide(args.data, args.side) as slide:
        print(table([measured(way, slide, **_options(args)) for way in WAYS]))


def memory(args: argparse.Namespace) -> None:
    """A slide and one of a quarter of its area."""
    rows = []
    for side in (args.side // 2, args.side):
        with _slide(args.data, side) as slide:
            rows.append(measured("softctm", slide, **_options(args)))
    print(table(rows))


def workers(args: argparse.Namespace) -> None:
    """One process, then worker processes."""
    with _slide(args.data, args.side) as slide:
        rows = []
        for count in (None, 1, 2, 4):
            row = measured("softctm", slide, workers=count, **_options(args))
            rows.append(row | {"way": "one process" if count is None else f"{count} workers"})
    print(table(rows))


def area(args: argparse.Namespace) -> None:
    """Time for slides of growing area, and the line through the origin that fits best."""
    rows = []
    for side in (args.side // 4, args.side // 2, args.side):
        with _slide(args.data, side) as slide:
            rows.append(measured("softctm", slide, **_options(args)))
    x, y = (np.array([row[name] for row in rows]) for name in ("mm2", "seconds"))
    slope = float((x * y).sum() / (x * x).sum())
    print(table(rows))
    print(f"\n{slope:.2f} s a mm²; largest deviation {float(np.abs(y / (slope * x) - 1).max()):.0%}")


def glass(args: argparse.Namespace) -> None:
    """A very large slide that is mostly glass."""
    with tempfile.TemporaryDirectory() as folder:
        tissue = mosaic(args.data, 6000, _MPP)
        slide = write_glass_slide(Path(folder) / "glass.tif", 100_000, 80_000, tissue, (51_200, 40_960))
        row = measured("softctm", slide, **_options(args))
    print(table([row]))
    print(json.dumps(row["stages"]))


def read(args: argparse.Namespace) -> None:
    """How fast one core decodes, and decodes and resamples, windows of 1024 pixels; MB of RGB a second."""
    with open_slide(args.slide, args.mpp) as slide:
        for name, mpp in (("decoded", slide.mpp[0]), ("cells, 0.2 µm", 0.2), ("tissue, 0.8 µm", 0.8)):
            width, height = slide.size_at(mpp)
            windows = [(x, y) for y in range(0, height - 1023, 1024) for x in range(0, width - 1023, 1024)]
            start = time.process_time()
            for x, y in windows[:100]:
                slide.read(x, y, 1024, 1024, mpp)
            seconds = time.process_time() - start
            level0 = len(windows[:100]) * 3 * 1024**2 * (mpp / slide.mpp[0]) ** 2
            print(f"{name}: {level0 / seconds / 1e6:.0f} MB/s of level 0, {len(windows[:100])} windows")


def pair(args: argparse.Namespace) -> None:
    """Pairs as slides: in the middle of the pasted patch, the slide's cells against the pair's."""
    options = _slide_options(args)
    detector = load_slide_detector(options.for_this_machine())
    assert isinstance(detector, Detector)
    source = open_pairs(args.data, args.subset)
    rows: list[dict[str, Any]] = []
    for index in range(min(args.pairs, len(source))):
        given = source.read(index)
        window = given.window
        points = detector(given)
        place = np.column_stack((points.x, points.y)).astype(np.float64) * 0.2 + 0.1
        expected = Cells(place, np.asarray(points.label == 2))
        with tempfile.TemporaryDirectory() as folder:
            image = pair_as_slide(given.tissue, given.cell, window.x, window.y)
            slide = write_slide(Path(folder) / "pair.tif", image, 0.2, **_LOSSLESS)
            found = cells_of(slide, options).moved(-0.8 * window.x, -0.8 * window.y)
        middle = [
            cells.where(np.abs(cells.place - 102.4).max(axis=1, initial=0) < 102.4 - 12.8)
            for cells in (expected, found)
        ]
        rows.append({"pair": given.name, **agreement(*middle)})
        print(json.dumps(rows[-1]), flush=True)
    counts = np.array([row["cells"] + row["others"] for row in rows], float)
    for name in ("same_place", "same_place_and_class"):
        print(name, round(float(np.average([float(row[name]) for row in rows], weights=counts)), 4))


def scores(args: argparse.Namespace) -> None:
    """The same tissue as slides of several resolutions: mean F1 against the annotations, counts pooled."""
    release = load_release(args.data, args.subset)[: args.pairs]
    source = open_pairs(args.data, args.subset)
    places = {name: index for index, name in enumerate(source.names)}
    for mpp in (0.2, 0.25, 0.5):
        found = []
        for annotated in release:
            given = source.read(places[annotated.id])
            image = pair_as_slide(given.tissue, given.cell, given.window.x, given.window.y)
            side = round(len(image) * 0.2 / mpp)
            seen = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))
            with tempfile.TemporaryDirectory() as folder:
                slide = write_slide(Path(folder) / "pair.tif", seen, mpp, **_LOSSLESS)
                cells = cells_of(slide, _slide_options(args))
            here = cells.moved(-0.8 * given.window.x, -0.8 * given.window.y)
            found.append(_in_patch(here))
        counts = count_pairs(found, [annotated.cells() for annotated in release]).sum(axis=0)
        named = {name: round(float(value), 4) for name, value in named_scores(counts).items()}
        print(json.dumps({"mpp": mpp, "pairs": len(release), **named}), flush=True)


def _in_patch(cells: Cells) -> CellPoints:
    """The cells that lie in the cell patch, in its pixels; equally sure of all."""
    half = PATCH_SIZE * CELL_MPP / 2
    inside = cells.where(np.abs(cells.place - half).max(axis=1, initial=0) < half)
    x, y = (inside.place / CELL_MPP).astype(np.int32).T
    return CellPoints(x, y, (1 + inside.tumor).astype(np.uint8), np.ones(len(x), np.float32))


def shift(args: argparse.Namespace) -> None:
    """White added above and left: which cells stay; and what another lattice says of the seams."""
    options = _slide_options(args)
    with open_slide(args.slide, args.mpp) as slide, tempfile.TemporaryDirectory() as folder:
        mpp = slide.mpp[0]
        image = slide.read(0, 0, *slide.size_at(mpp), mpp)
        base = cells_of(write_slide(Path(folder) / "base.tif", image, mpp, **_LOSSLESS), options)
        for left, top in _OFFSETS:
            path = write_slide(Path(folder) / "shifted.tif", with_white(image, left, top), mpp, **_LOSSLESS)
            moved = cells_of(path, options).moved(-left * mpp, -top * mpp)
            row = {"white": (left, top), **agreement(base, moved), **at_seams(base, moved)}
            print(json.dumps(row), flush=True)


def _options(args: argparse.Namespace) -> dict[str, object]:
    return {"quality": args.quality, "weights": args.weights}


def _slide_options(args: argparse.Namespace) -> SlideOptions:
    return SlideOptions(quality=args.quality, weights=args.weights, workers=getattr(args, "workers", None))


def _one(args: argparse.Namespace) -> None:
    print(json.dumps(one(args.way, args.slide, _slide_options(args))))


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slides", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for run in (speed, memory, workers, area, glass, read, pair, scores, shift, _one):
        command = commands.add_parser(run.__name__.strip("_"), help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--quality", default="fast")
        command.add_argument("--weights", type=Path)
        if run in (read, shift):
            command.add_argument("slide", type=Path)
            command.add_argument("--mpp", type=float)
        elif run is _one:
            command.add_argument("way", choices=WAYS)
            command.add_argument("slide", type=Path)
            command.add_argument("--workers", type=int)
        else:
            command.add_argument("--data", type=Path, required=True)
        if run in (speed, memory, workers, area, glass):
            command.add_argument("--side", type=int, default=12000)
        if run in (pair, scores):
            command.add_argument("--subset", default="train")
            command.add_argument("--pairs", type=int, default=8)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
