"""The mean of one head over views and networks: a running sum in strips that fit into a processor's cache.

Between the networks the sum is a list of values, its pieces. Where networks give logits, a piece holds one
class in one strip of rows, and the first class is left out: its probability is what the others lack to 1.
Where they give probabilities or plain numbers, the sum is one piece with all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from softctm.inference.tta import IDENTITY, View, transform
from softctm.model.manifest import Head
from softctm.ort.graphs import Graph
from softctm.ort.helper_graphs import HelperGraphs
from softctm.ort.runtime import Value


@dataclass(frozen=True)
class Oriented:
    """A square map (1, C, side, side) on the device, and the view whose orientation it has."""

    value: Value
    view: View


class HeadMean:
    """Adds up what networks give for one head, and takes the mean.

    Parameters
    ----------
    helpers : HelperGraphs
    head : Head
    side : int
        Places a side of what the head gives.
    strips : int
        Strips of rows in which logits are worked on.
    zero : Value
        (1, 1, 1, 1) float32 zero on the device.
    """

    def __init__(self, helpers: HelperGraphs, head: Head, side: int, strips: int, zero: Value) -> None:
        self.head = head
        self._helpers, self._side, self._zero = helpers, side, zero
        self._classes, self._from_logits = head.channels, head.activation == "logits"
        self._strips = strips if self._from_logits else 1
        self._add = helpers(adding_graph, self._classes, self._from_logits, self._strips, side)

    def no_pieces(self) -> list[Value]:
        """The sum over no network."""
        return [self._zero] * pieces(self._classes, self._from_logits, self._strips)

    def nothing(self) -> Oriented:
        """The sum over no view."""
        return Oriented(self._zero, IDENTITY)

    def add(self, output: Value, sums: Sequence[Value]) -> list[Value]:
        """Add a network's output (N, classes, side, side) for a batch of views to the pieces."""
        return self._add(output, *sums)

    def join(self, total: Oriented, sums: Sequence[Value], views: Sequence[View], rows: int) -> Oriented:
        """Add a batch's pieces, of whose `rows` the first len(views) count, to the sum of those before."""
        join = self._helpers(
            joining_graph,
            tuple(views),
            rows,
            total.view,
            self._classes,
            self._from_logits,
            self._strips,
            self._side,
        )
        (value,) = join(total.value, *sums)
        return Oriented(value, views[-1])

    def finish(self, sums: Sequence[Oriented], weight: float) -> tuple[Value, bool]:
        """`weight` × the sum of sums, (1, classes, side, side), as the image lies; whether all is finite."""
        orientations = tuple(total.view for total in sums)
        finish = self._helpers(mean_graph, orientations, weight, self._classes, self._from_logits, self._side)
        mean, check = finish(*(total.value for total in sums), to_host=[1])
        return mean, bool(np.isfinite(check.numpy()))


def classes_summed(classes: int, from_logits: bool) -> range:
    """The classes that the sum holds."""
    return range(1 if from_logits and classes > 1 else 0, classes)


def pieces(classes: int, from_logits: bool, strips: int) -> int:
    """How many pieces the sum has."""
    return strips * len(classes_summed(classes, from_logits)) if from_logits else 1


def adding_graph(classes: int, from_logits: bool, strips: int, side: int) -> bytes:
    """Graph: a network's `output` (N, classes, side, side) float32 and the sum's pieces → the new pieces.

    The pieces that come in may be of any shape that broadcasts to those that come out, such as a single zero.
    """
    graph = Graph()
    output = graph.input("output", np.float32, ("rows", classes, side, side))
    shape = ("rows_or_one", "channels_or_one", "height_or_one", "width_or_one")
    if not from_logits:
        return graph.model(graph.node("Add", output, graph.input("sum", np.float32, shape)))
    summed = classes_summed(classes, from_logits)
    borders = [side * strip // strips for strip in range(strips + 1)]
    results: dict[tuple[int, int], str] = {}
    for strip, (top, bottom) in enumerate(pairwise(borders)):
        # One class at a time: ONNX Runtime's reductions over channels take four times as long, its Softmax
        # over channels, which moves them last and back, fifteen times.
        logits = [
            graph.node(
                "Slice", output, graph.axes(index, top), graph.axes(index + 1, bottom), graph.axes(1, 2)
            )
            for index in range(classes)
        ]
        highest = graph.node("Max", *logits)
        powers = [graph.node("Exp", graph.node("Sub", values, highest)) for values in logits]
        inverse = graph.node("Reciprocal", graph.node("Sum", *powers))
        for index in summed:
            probability = graph.node("Mul", powers[index], inverse)
            results[index, strip] = graph.node("Add", probability, f"sum_{index}_{strip}")
    ordered = sorted(results)
    for index, strip in ordered:
        graph.input(f"sum_{index}_{strip}", np.float32, shape)
    return graph.model(*(results[key] for key in ordered))


def joining_graph(
    views: Sequence[View],
    rows: int,
    start: View,
    classes: int,
    from_logits: bool,
    strips: int,
    side: int,
) -> bytes:
    """Graph: adds the sum over a pass, whose rows have the orientations `views`, to the sum of those before.

    Inputs `before` (1, classes summed, side, side) float32 in the orientation `start`, or anything that
    broadcasts to it, and the pass's pieces, of whose `rows` the first len(views) count. Output: the sum, in
    the orientation of the last view.
    """
    graph = Graph()
    total = graph.input("before", np.float32, ("one", "channels_or_one", "side_or_one", "side_or_one"))
    parts = [
        graph.input(f"piece_{index}", np.float32, ("rows", "channels", "height", "width"))
        for index in range(pieces(classes, from_logits, strips))
    ]
    # Strips of a class, then classes, follow each other as they lie in memory.
    joined = graph.node("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]
    whole = (0, len(classes_summed(classes, from_logits)), side, side)
    batch = graph.node("Reshape", joined, graph.axes(*whole))
    for index, (before, view) in enumerate(zip((start, *views), views, strict=False)):
        row = batch
        if rows > 1:
            row = graph.node("Slice", batch, graph.axes(index), graph.axes(index + 1), graph.axes(0))
        total = graph.node("Add", transform(graph, total, before, view), row)
    return graph.model(total)


def mean_graph(
    orientations: Sequence[View], weight: float, classes: int, from_logits: bool, side: int
) -> bytes:
    """Graph: sums (1, classes summed, side, side) float32, one in each of the `orientations` → the mean.

    Outputs: `weight` × the sum of the sums, all classes, as the image lies, (1, classes, side, side) float32;
    and its total, which shows NaN and infinity.
    """
    graph = Graph()
    sums = [
        graph.input(f"sum_{index}", np.float32, (1, "channels", side, side))
        for index in range(len(orientations))
    ]
    total = graph.node(
        "Sum",
        *(transform(graph, value, view, IDENTITY) for value, view in zip(sums, orientations, strict=True)),
    )
    mean = graph.node("Mul", total, graph.constant(np.float32(weight)))
    if len(classes_summed(classes, from_logits)) < classes:
        others = mean
        if classes > 2:
            split = [
                graph.node("Slice", mean, graph.axes(index), graph.axes(index + 1), graph.axes(1))
                for index in range(classes - 1)
            ]
            others = graph.node("Sum", *split)
        first = graph.node("Sub", graph.constant(np.float32(1)), others)
        mean = graph.node("Concat", first, mean, axis=1)
    return graph.model(mean, graph.node("ReduceSum", mean, keepdims=0))
