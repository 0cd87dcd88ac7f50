"""The dihedral group: eight ways to lay a square patch, and the ONNX graphs that turn it there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softctm.errors import UsageError
from softctm.graphs import Graph

_HEIGHT, _WIDTH = 2, 3
_TO_THE_END = np.iinfo(np.int64).min


@dataclass(frozen=True)
class View:
    """One element of the group: flip left-right or not, then turn clockwise.

    Attributes
    ----------
    flipped : bool
    quarter_turns : int
        Clockwise, 0 … 3.
    """

    flipped: bool
    quarter_turns: int

    @property
    def transposes(self) -> bool:
        """Whether rows become columns; every view is this transposition, or none, then reversals of axes."""
        return self.quarter_turns % 2 == 1

    @property
    def reversed_axes(self) -> tuple[int, ...]:
        """Axes (of batch, channel, row, column) to reverse after the transposition."""
        rows = self.quarter_turns >= 2
        columns = self.quarter_turns in (1, 2)
        if self.flipped and self.transposes:
            rows = not rows
        elif self.flipped:
            columns = not columns
        return (_HEIGHT,) * rows + (_WIDTH,) * columns


VIEWS = (
    View(False, 0),
    View(True, 0),
    View(False, 2),
    View(True, 2),
    View(False, 1),
    View(True, 1),
    View(False, 3),
    View(True, 3),
)
"""In the order in which fewer views are taken: as is; flipped; 180°; flipped 180°; the quarter turns."""

VIEW_COUNTS = (1, 2, 4, 8)


def first_views(count: int) -> tuple[View, ...]:
    """The first `count` of `VIEWS`.

    Raises
    ------
    UsageError
        If `count` is none of 1, 2, 4, 8.
    """
    if count not in VIEW_COUNTS:
        raise UsageError(f"views must be one of 1, 2, 4, 8, not {count}")
    return VIEWS[:count]


def turning_graph(views: Sequence[View]) -> bytes:
    """Graph: `image` (1, C, S, S) float32 → a batch (len(views), C, S, S), one row a view."""
    graph = Graph()
    image = graph.input("image", np.float32, (1, "channels", "side", "side"))
    turned = [_reverse(graph, _transpose(graph, image, view), view) for view in views]
    # A graph must not hand its input out as its output.
    batch = graph.node("Concat", *turned, axis=0) if len(turned) > 1 else turned[0]
    return graph.model(graph.node("Identity", batch) if batch == image else batch)


def returning_graph(views: Sequence[View], rows: int, weight: float) -> bytes:
    """Graph: turns a batch's rows back and adds them to a running mean.

    Inputs `mean` (1, K, S, S), or anything that broadcasts to it, and `batch` (`rows`, K, S, S), of which the
    first len(views) rows are used; output `mean` + `weight` × the sum of those rows turned back.
    """
    graph = Graph()
    mean = graph.input("mean", np.float32, ("one", "channels_or_one", "side_or_one", "side_or_one"))
    batch = graph.input("batch", np.float32, ("views", "channels", "side", "side"))
    returned = []
    for index, view in enumerate(views):
        row = batch
        if rows > 1:
            row = graph.node("Slice", batch, graph.axes(index), graph.axes(index + 1), graph.axes(0))
        returned.append(_transpose(graph, _reverse(graph, row, view), view))
    total = graph.node("Sum", *returned) if len(returned) > 1 else returned[0]
    weighted = graph.node("Mul", total, graph.constant(np.float32(weight)))
    return graph.model(graph.node("Add", weighted, mean))


def _transpose(graph: Graph, value: str, view: View) -> str:
    return graph.node("Transpose", value, perm=[0, 1, 3, 2]) if view.transposes else value


def _reverse(graph: Graph, value: str, view: View) -> str:
    axes = view.reversed_axes
    if not axes:
        return value
    first, stop, step = (graph.axes(*(number,) * len(axes)) for number in (-1, _TO_THE_END, -1))
    return graph.node("Slice", value, first, stop, graph.axes(*axes), step)
