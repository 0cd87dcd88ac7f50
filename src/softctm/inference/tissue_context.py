"""From tissue probabilities to the cell network's extra channels: crop the window, upsample it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softctm.cubic import cubic_kernel
from softctm.ort.graphs import Graph
from softctm.pair import PATCH_SIZE, WINDOW_SIZE, ZOOM


def context_graph(pooling: int = 1) -> bytes:
    """Graph: cell image and tissue probabilities → the cell network's input.

    Inputs `cell` (1024, 1024, 3) uint8; `tissue` (1, C, H, W) float32, at least 256 a side; `x`, `y`
    (1,) int64, the window's corner. Output (1, 3 + C, 1024, 1024) float32: RGB / 255, then the window of the
    tissue map, enlarged four times by bicubic interpolation, which may overshoot [0, 1]. With `pooling`, its
    averages over blocks of pooling × pooling pixels, without ever making the whole.
    """
    graph = Graph()
    cell = scaled_image(graph, graph.input("cell", np.uint8, (PATCH_SIZE, PATCH_SIZE, 3)), pooling)
    tissue = graph.input("tissue", np.float32, (1, "classes", "height", "width"))
    column, row = graph.input("x", np.int64, (1,)), graph.input("y", np.int64, (1,))
    corner = graph.node("Concat", row, column, axis=0)
    end = graph.node("Add", corner, graph.axes(WINDOW_SIZE, WINDOW_SIZE))
    window = graph.node("Slice", tissue, corner, end, graph.axes(2, 3))
    # As two products with a matrix of cubic weights: the same numbers as ONNX's Resize, thirty times faster.
    weights = upsampling_matrix(WINDOW_SIZE, ZOOM).reshape(-1, pooling, WINDOW_SIZE).mean(axis=1)
    rows = graph.node("MatMul", graph.constant(weights), window)
    enlarged = graph.node("MatMul", rows, graph.constant(np.ascontiguousarray(weights.T)))
    return graph.model(graph.node("Concat", cell, enlarged, axis=1))


def pair_graph(pooling: int = 1) -> bytes:
    """Graph: both images of a pair → the input of networks that see them at once.

    Inputs `cell` and `tissue` (1024, 1024, 3) uint8; `x`, `y` (1,) int64, the window's corner. Output
    (1, 7, 1024, 1024) float32: RGB / 255 of the one and of the other, then 1 in the window and 0 around it;
    pooled likewise.
    """
    graph = Graph()
    images = [
        scaled_image(graph, graph.input(name, np.uint8, (PATCH_SIZE, PATCH_SIZE, 3)), pooling)
        for name in ("cell", "tissue")
    ]
    column, row = graph.input("x", np.int64, (1,)), graph.input("y", np.int64, (1,))
    across, down = (_covered(graph, start, pooling) for start in (column, row))
    window = graph.node("Mul", graph.node("Unsqueeze", down, graph.axes(1)), across)
    window = graph.node("Unsqueeze", window, graph.axes(0, 1))
    return graph.model(graph.node("Concat", *images, window, axis=1))


def _covered(graph: Graph, start: str, pooling: int) -> str:
    """Add the nodes that say how much of each pixel the window covers that begins at `start`: (side,)."""
    first = np.arange(0, PATCH_SIZE, pooling)
    low = graph.node("Max", graph.constant(first), start)
    end = graph.node("Add", start, graph.axes(WINDOW_SIZE))
    high = graph.node("Min", graph.constant(first + pooling), end)
    pixels = graph.node("Max", graph.node("Sub", high, low), graph.axes(0))
    return graph.node("Div", graph.node("Cast", pixels, to=1), graph.constant(np.float32(pooling)))


def image_graph(side: int = PATCH_SIZE, pooling: int = 1) -> bytes:
    """Graph: `image` (side, side, 3) uint8 → (1, 3, side, side) float32, RGB / 255; pooled likewise."""
    graph = Graph()
    return graph.model(scaled_image(graph, graph.input("image", np.uint8, (side, side, 3)), pooling))


def scaled_image(graph: Graph, image: str, pooling: int = 1) -> str:
    """Add the nodes that take an image (H, W, 3) uint8 to (1, 3, H, W) float32 in [0, 1], pooled likewise."""
    planes = graph.node("Cast", graph.node("Transpose", image, perm=[2, 0, 1]), to=1)
    planes = graph.node("Unsqueeze", planes, graph.axes(0))
    if pooling > 1:  # before the division: the averages of whole numbers are exact
        sides = [pooling, pooling]
        planes = graph.node("AveragePool", planes, kernel_shape=sides, strides=sides)
    return graph.node("Div", planes, graph.constant(np.float32(255)))


def upsampling_matrix(length: int, zoom: int) -> NDArray[np.float32]:
    """Weights of cubic interpolation with half-pixel centers and repeated borders.

    Returns
    -------
    (length × zoom, length) float32
        Row i holds the weights of the input samples in output sample i; they sum to 1.
    """
    source = (np.arange(length * zoom) + 0.5) / zoom - 0.5
    samples = np.floor(source).astype(np.int64)[:, None] + np.arange(-1, 3)
    weights = cubic_kernel(np.abs(source[:, None] - samples))
    matrix = np.zeros((length * zoom, length))
    np.add.at(matrix, (np.arange(length * zoom)[:, None], samples.clip(0, length - 1)), weights)
    return matrix.astype(np.float32)
