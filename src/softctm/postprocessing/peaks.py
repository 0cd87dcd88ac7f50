"""From a map of cell probabilities to points: blur, local maxima, one of each group of equals."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.ort.graphs import Graph
from softctm.ort.runtime import Runtime, Value
from softctm.points import CellClass, CellPoints, DetectedCells

_NONE, _BACKGROUND_CELL, _TUMOR_CELL = 0, 1, 2
_LANES = 16


@dataclass(frozen=True)
class Peaks:
    """How peaks become cells; the defaults are the authors' rule.

    Attributes
    ----------
    sigma_px : float
        Standard deviation of the Gaussian blur, pixels of 0.2 µm, above 0.
    distance_px : int
        A peak is the maximum of its (2d + 1)² neighborhood; of equal ones less than d apart one stays.
    threshold : float or None
        Smallest blurred foreground of a cell (exclusive), 0 … 1. None: a peak is a cell where P(none) is less
        than the larger of the two cell probabilities, unblurred.
    """

    sigma_px: float = 3.0
    distance_px: int = 3
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sigma_px <= 32:
            raise ValueError(f"sigma_px must lie in 0 … 32 (0 excluded), not {self.sigma_px}")
        if not 1 <= self.distance_px <= 64:
            raise ValueError(f"distance_px must lie in 1 … 64, not {self.distance_px}")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ValueError(f"threshold must lie in 0 … 1 (1 excluded), not {self.threshold}")


def gaussian_kernel(sigma: float) -> NDArray[np.float32]:
    """Normalized Gaussian of radius 4 σ, rounded up: 25 samples for σ = 3."""
    radius = math.ceil(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return kernel


def peaks_graph(peaks: Peaks) -> bytes:
    """Graph: `cells` (1, 3, H, W) float32 → candidate points, ties not yet resolved.

    Outputs: positions (2, N) int64, rows then columns, in row-major order; the N candidates' probabilities
    (N, 3) float32; their blurred foreground (N,) float32; whether the map is the same everywhere (then there
    are no peaks), a bool.
    """
    graph = Graph()
    cells = graph.input("cells", np.float32, (1, 3, "height", "width"))
    none, background, tumor = (
        graph.node("Slice", cells, graph.axes(channel), graph.axes(channel + 1), graph.axes(1))
        for channel in (_NONE, _BACKGROUND_CELL, _TUMOR_CELL)
    )
    foreground = graph.node("Sub", graph.constant(np.float32(1)), none)
    blurred = _blur(graph, foreground, gaussian_kernel(peaks.sigma_px))
    window, reach = 2 * peaks.distance_px + 1, peaks.distance_px
    highest = graph.node("MaxPool", blurred, kernel_shape=[window, window], pads=[reach] * 4)
    is_maximum = graph.node("Equal", blurred, highest)
    is_above = graph.node("Greater", blurred, graph.constant(np.float32(peaks.threshold or 0.0)))
    is_peak = graph.node("And", is_maximum, is_above)
    if peaks.threshold is None:
        is_cell = graph.node("Less", none, graph.node("Max", background, tumor))
        is_peak = graph.node("And", is_peak, is_cell)
    plane = graph.node("Squeeze", is_peak, graph.axes(0, 1))
    positions = graph.node("NonZero", plane)
    # GatherND wants one row a candidate and, with the classes last, gives all three probabilities.
    last = graph.node("Transpose", graph.node("Squeeze", cells, graph.axes(0)), perm=[1, 2, 0])
    places = graph.node("Transpose", positions, perm=[1, 0])
    probabilities = graph.node("GatherND", last, places)
    heights = graph.node("GatherND", graph.node("Squeeze", blurred, graph.axes(0, 1)), places)
    lowest = graph.node("ReduceMin", blurred, keepdims=0)
    is_flat = graph.node("Equal", lowest, graph.node("ReduceMax", blurred, keepdims=0))
    return graph.model(positions, probabilities, heights, is_flat)


def _blur(graph: Graph, plane: str, kernel: NDArray[np.float32]) -> str:
    """Add a separable blur of a (1, 1, H, W) map, mirrored at the border without repeating the edge.

    Along the rows, then along the columns as rows of the transposed map. The rows are dealt to channels, each
    convolved by itself: a convolution of a single channel leaves most of a processor's vector units idle.
    """
    margin = len(kernel) // 2
    margins = graph.axes(0, 0, 0, margin, 0, 0, 0, margin)
    # Convolutions add in the same order everywhere, so that a plateau stays one to the last bit.
    weights = graph.constant(np.tile(kernel, (_LANES, 1, 1, 1)))
    for _ in range(2):
        height = graph.node("Shape", plane, start=2, end=3)
        missing = graph.node("Mod", graph.node("Neg", height), graph.axes(_LANES))
        below = graph.node("Concat", graph.axes(*[0] * 6), missing, graph.axes(0), axis=0)
        padded = graph.node("Pad", graph.node("Pad", plane, margins, mode="reflect"), below)
        lanes = graph.node("Reshape", padded, graph.axes(1, _LANES, -1, 0))
        blurred = graph.node("Conv", lanes, weights, group=_LANES)
        rows = graph.node("Reshape", blurred, graph.axes(1, 1, -1, 0))
        rows = graph.node("Slice", rows, graph.axes(0), height, graph.axes(2))
        plane = graph.node("Transpose", rows, perm=[0, 1, 3, 2])
    return plane


class PeakDecoder:
    """The method made ready: peaks are searched for on the device, and only candidates leave it."""

    def __init__(self, settings: Peaks, runtime: Runtime) -> None:
        self._distance = settings.distance_px
        self._search = runtime.helper(peaks_graph(settings), "peaks")

    def __call__(self, maps: Mapping[str, Value]) -> DetectedCells:
        """The cells in `maps["cells"]`, (1, 3, H, W) float32 probabilities on the device."""
        positions, probabilities, heights, is_flat = (
            value.numpy() for value in self._search(maps["cells"], to_host=(0, 1, 2, 3))
        )
        if is_flat:
            return DetectedCells.empty()
        return cells_from_candidates(positions, probabilities, heights, self._distance)


def cells_from_candidates(
    positions: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    heights: NDArray[np.float32],
    distance: int,
) -> DetectedCells:
    """Resolve ties, then name the cells.

    Parameters
    ----------
    positions : (2, N) int64
        Rows and columns of local maxima, in row-major order. Any two closer than `distance` are equally high,
        since each lies in the other's neighborhood.
    probabilities : (N, 3) float32
        None, background cell, tumor cell, at those positions.
    heights : (N,) float32
        Blurred foreground at those positions.
    distance : int
        Of maxima less than this apart (Chebyshev), the first in row-major order stays.
    """
    chosen = _spread(positions[0], positions[1], distance)
    rows, columns = positions[0][chosen], positions[1][chosen]
    probabilities = probabilities[chosen]
    background, tumor = probabilities[:, _BACKGROUND_CELL], probabilities[:, _TUMOR_CELL]
    label = np.where(tumor > background, CellClass.TUMOR, CellClass.BACKGROUND).astype(np.uint8)
    score = np.clip(np.maximum(background, tumor), 0, 1).astype(np.float32)
    points = CellPoints(columns.astype(np.int32), rows.astype(np.int32), label, score)
    return DetectedCells(points, probabilities, heights[chosen])


def _spread(rows: NDArray[np.int64], columns: NDArray[np.int64], distance: int) -> NDArray[np.int64]:
    """Indices of the points that stay when each, in order, forbids its (2 · distance − 1)² neighborhood.

    A row at a time: on a map where every pixel is a candidate most rows are ruled out as a whole, and in the
    others the search jumps from one point that stays to the next.
    """
    if not len(rows):
        return np.zeros(0, np.int64)
    forbidden_until = np.full(int(columns.max()) + 1, -1)
    reach = distance - 1
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    chosen: list[int] = []
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        row = int(rows[start])
        free = np.flatnonzero(forbidden_until[columns[start:stop]] < row)
        open_columns = columns[start:stop][free].tolist()
        position = 0
        while position < len(open_columns):
            column = open_columns[position]
            chosen.append(int(start + free[position]))
            forbidden_until[max(0, column - reach) : column + reach + 1] = row + reach
            position = bisect.bisect_left(open_columns, column + distance, position + 1)
    return np.array(chosen, np.int64)
