"""Test-time augmentation: the eight views of a square patch, and the ONNX graphs that make and undo them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softctm.choices import VIEW_COUNTS
from softctm.errors import UsageError
from softctm.ort.graphs import Graph

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
"""The dihedral group, in the order in which fewer views are taken: identity; flip; 180°; flip and 180°; the
quarter turns.

Each differs from the one before by the reversal of one axis or by one transposition, so that making it from
that one takes a single pass over memory.
"""

IDENTITY = VIEWS[0]


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


def views_graph(views: Sequence[View], start: View = IDENTITY) -> bytes:
    """Graph: `image` (1, C, S, S) float32 in the orientation `start` → its views (len(views), C, S, S)."""
    graph = Graph()
    image = row = graph.input("image", np.float32, (1, "channels", "side", "side"))
    rows = []
    for before, view in zip((start, *views), views, strict=False):
        row = transform(graph, row, before, view)
        rows.append(row)
    # A graph must not hand its input out as its output.
    batch = graph.node("Concat", *rows, axis=0) if len(rows) > 1 else row
    return graph.model(graph.node("Identity", batch) if batch == image else batch)


def transform(graph: Graph, value: str, start: View, end: View) -> str:
    """Add the nodes that take a value (N, C, S, S) from the orientation `start` to the orientation `end`."""
    transposes = start.transposes != end.transposes
    # Of the reversals before and after, those of the same axis cancel out.
    undone = {_HEIGHT + _WIDTH - axis if transposes else axis for axis in start.reversed_axes}
    axes = sorted(undone ^ set(end.reversed_axes))
    if transposes:
        value = graph.node("Transpose", value, perm=[0, 1, _WIDTH, _HEIGHT])
    if not axes:
        return value
    first, stop, step = (graph.axes(*(number,) * len(axes)) for number in (-1, _TO_THE_END, -1))
    return graph.node("Slice", value, first, stop, graph.axes(*axes), step)
