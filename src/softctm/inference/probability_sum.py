"""A running sum of probabilities, in strips that fit into a processor's cache, and the mean it ends as.

Between the networks the sum is a list of values, its pieces. Where networks give logits, a piece holds one
class in one strip of rows, and the first class is left out: its probability is what the others lack to 1.
Where they give probabilities, the sum is one piece with all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from softctm.inference.tta import AS_IS, View, turned
from softctm.ort.graphs import Graph
from softctm.pair import PATCH_SIZE


def classes_summed(classes: int, from_logits: bool) -> range:
    """The classes that the sum holds."""
    return range(1 if from_logits and classes > 1 else 0, classes)


def pieces(classes: int, from_logits: bool, strips: int) -> int:
    """How many pieces the sum has."""
    return strips * len(classes_summed(classes, from_logits)) if from_logits else 1


def adding_graph(classes: int, from_logits: bool, strips: int) -> bytes:
    """Graph: a network's `output` (N, classes, 1024, 1024) float32 and the sum's pieces → the new pieces.

    The pieces that come in may be of any shape that broadcasts to those that come out, such as a single zero.
    """
    graph = Graph()
    output = graph.input("output", np.float32, ("rows", classes, PATCH_SIZE, PATCH_SIZE))
    shape = ("rows_or_one", "channels_or_one", "height_or_one", "width_or_one")
    if not from_logits:
        return graph.model(graph.node("Add", output, graph.input("sum", np.float32, shape)))
    summed = classes_summed(classes, from_logits)
    borders = [PATCH_SIZE * strip // strips for strip in range(strips + 1)]
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
    views: Sequence[View], rows: int, start: View, classes: int, from_logits: bool, strips: int
) -> bytes:
    """Graph: adds the sum over a pass, whose rows are laid as `views`, to the sum of the passes before.

    Inputs `before` (1, classes summed, 1024, 1024) float32, laid as `start`, or anything that broadcasts to
    it, and the pass's pieces, of whose `rows` the first len(views) count. Output: the sum, laid as the last
    view.
    """
    graph = Graph()
    total = graph.input("before", np.float32, ("one", "channels_or_one", "side_or_one", "side_or_one"))
    parts = [
        graph.input(f"piece_{index}", np.float32, ("rows", "channels", "height", "width"))
        for index in range(pieces(classes, from_logits, strips))
    ]
    # Strips of a class, then classes, follow each other as they lie in memory.
    joined = graph.node("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]
    whole = (0, len(classes_summed(classes, from_logits)), PATCH_SIZE, PATCH_SIZE)
    batch = graph.node("Reshape", joined, graph.axes(*whole))
    for index, (before, view) in enumerate(zip((start, *views), views, strict=False)):
        row = batch
        if rows > 1:
            row = graph.node("Slice", batch, graph.axes(index), graph.axes(index + 1), graph.axes(0))
        total = graph.node("Add", turned(graph, total, before, view), row)
    return graph.model(total)


def mean_graph(laid: Sequence[View], weight: float, classes: int, from_logits: bool) -> bytes:
    """Graph: sums (1, classes summed, 1024, 1024) float32, one laid as each of `laid` → the mean.

    Outputs: `weight` × the sum of the sums, all classes, laid as the image, (1, classes, 1024, 1024) float32;
    and its total, which shows NaN and infinity.
    """
    graph = Graph()
    sums = [
        graph.input(f"sum_{index}", np.float32, (1, "channels", PATCH_SIZE, PATCH_SIZE))
        for index in range(len(laid))
    ]
    total = graph.node(
        "Sum", *(turned(graph, value, view, AS_IS) for value, view in zip(sums, laid, strict=True))
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
