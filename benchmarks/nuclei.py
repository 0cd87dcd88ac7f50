"""Time nuclei on a synthetic field: post-processing, against a loop over masks; a model from image to table.

    python -m benchmarks.nuclei [--nuclei 1500] [--size 1024] [--repeat 5] [--weights model_weights/nuclei]

The loop is what a first version would do: for each nucleus compare the whole map with its number, and take
type, position, box, outline and measurements from that mask.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed
from skimage.measure import find_contours, regionprops

from softctm import load_detector
from softctm.inference.nuclei_image import ImageNuclei, find_nuclei
from softctm.nuclei_table import NucleiTable
from softctm.postprocessing.hover import classify_nuclei, separate_nuclei
from softctm.postprocessing.nuclei_features import measure_nuclei
from softctm.postprocessing.outlines import outlines

Plane = NDArray[Any]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nuclei", description=__doc__)
    parser.add_argument("--nuclei", type=int, default=1500, help="(default: 1500)")
    parser.add_argument("--size", type=int, default=1024, help="side of the field, pixels (default: 1024)")
    parser.add_argument("--repeat", type=int, default=5, help="the fastest of so many counts (default: 5)")
    parser.add_argument(
        "--weights", type=Path, default=Path("model_weights/nuclei"), help="(default: model_weights/nuclei)"
    )
    args = parser.parse_args()
    binary, h, v, types = drawn_field(args.nuclei, args.size)
    image = np.random.default_rng(0).integers(0, 256, (*binary.shape, 3), dtype=np.uint8)
    instances = separate_nuclei(binary, h, v, magnification=40)
    table = classify_nuclei(instances, types)
    print(f"{len(table)} nuclei in {args.size}² pixels; {platform.machine()}, NumPy {np.__version__}")
    separate = best_of(args.repeat, lambda: separate_nuclei(binary, h, v, magnification=40))
    print(f"separate_nuclei                    {separate * 1000:8.1f} ms")
    steps: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "classify_nuclei": (
            lambda: classify_nuclei(instances, types),
            lambda: looped_table(instances, types),
        ),
        "outlines": (lambda: outlines(instances), lambda: looped_outlines(instances, table)),
        "measure_nuclei": (
            lambda: measure_nuclei(image, instances, table, mpp=0.25),
            lambda: looped_features(image, instances, table),
        ),
    }
    for name, (fast, loop) in steps.items():
        quick, slow = best_of(args.repeat, fast), best_of(1, loop)
        print(
            f"{name:<16} {quick * 1000:8.1f} ms, loop {slow * 1000:8.1f} ms: {slow / quick:.0f} times as fast"
        )
    detector = load_detector(args.weights, device="cpu")
    drawn = np.where(binary[..., None] > 0, (90, 60, 140), (220, 170, 210)).astype(np.uint8)
    found: list[ImageNuclei] = []
    seconds = best_of(args.repeat, lambda: found.append(find_nuclei(detector, drawn)))
    print(f"{args.weights}: {seconds:.2f} s from {args.size}² pixels to {len(found[0].nuclei)} nuclei")
    return 0


def drawn_field(count: int, size: int) -> tuple[Plane, Plane, Plane, Plane]:
    """Ellipses on a jittered grid, some of them touching, with the maps that a perfect network would give.

    Returns
    -------
    binary, h, v, types : (size, size) uint8, float32, float32, uint8
    """
    random = np.random.default_rng(7)
    across = int(np.ceil(np.sqrt(count)))
    pitch = size / across
    binary, types = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    h, v = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    for number in range(count):
        center = (np.array(divmod(number, across)) + 0.5 + random.uniform(-0.08, 0.08, 2)) * pitch
        radii = random.uniform(0.36, 0.52, 2) * pitch
        top, left = np.maximum(np.floor(center - radii), 0).astype(int)
        bottom, right = np.minimum(np.ceil(center + radii) + 1, size).astype(int)
        y, x = np.mgrid[top:bottom, left:right]
        v_here, h_here = (y - center[0]) / radii[0], (x - center[1]) / radii[1]
        inside = (h_here**2 + v_here**2 <= 1) & (binary[top:bottom, left:right] == 0)
        for plane, values in ((binary, 1), (types, random.integers(1, 6)), (h, h_here), (v, v_here)):
            plane[top:bottom, left:right] = np.where(inside, values, plane[top:bottom, left:right])
    return binary, h, v, types


def looped_table(instances: Plane, types: Plane) -> list[tuple[Any, ...]]:
    """Type, its share, centroid and box of each nucleus, mask by mask."""
    rows = []
    for number in np.unique(instances)[1:]:
        mask = instances == number
        kinds, counts = np.unique(types[mask], return_counts=True)
        best = counts[kinds != 0].argmax() if (kinds != 0).any() else 0
        ys, xs = np.nonzero(mask)
        box = ys.min(), xs.min(), ys.max() + 1, xs.max() + 1
        rows.append((number, kinds[kinds != 0][best], counts.max() / len(ys), xs.mean(), ys.mean(), box))
    return rows


def looped_outlines(instances: Plane, table: NucleiTable) -> list[Plane]:
    """The contour of each nucleus, mask by mask."""
    return [find_contours((np.pad(instances, 1) == number).astype(float), 0.5)[0] for number in table.id]


def looped_features(image: Plane, instances: Plane, table: NucleiTable) -> list[tuple[float, ...]]:
    """Measurements of each nucleus, mask by mask."""
    hematoxylin = rgb2hed(image)[..., 0]
    rows: list[tuple[float, ...]] = []
    for number in table.id:
        mask = instances == number
        (region,) = regionprops(mask.astype(np.uint8))
        rows.append((region.area, region.perimeter, region.eccentricity, hematoxylin[mask].mean()))
    return rows


def best_of(repeat: int, call: Callable[[], object]) -> float:
    """Seconds of the fastest call."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    raise SystemExit(main())
