"""Small networks with weights set by hand, not trained, for the tests.

    python test/hand_set_networks.py [FOLDER]

writes `tissue.onnx`, `cell_fold0.onnx` … `cell_fold4.onnx` and `model.json`, by default to `test/hand_set/`.
They see dye amounts by color deconvolution. Tissue: much hematoxylin and little eosin around is cancer.
Cells: a blob of hematoxylin is a nucleus; large and pale, in cancer, is a tumor cell. The few constants were
read off the synthetic pairs of `softctm phantom`; on real tissue the networks are of no use.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from softctm.model.manifest import Manifest

FOLDER = Path(__file__).parent / "hand_set"
SIZE = 1024
FOLDS = 5
OPSET, IR_VERSION = 17, 8

HEMATOXYLIN = (0.60, 0.67, 0.43)
EOSIN = (0.17, 0.88, 0.45)
"""Optical densities in R, G, B of the two dyes."""

CELL_POOL = 4
"""Cells are looked for at 0.8 µm per pixel, so that a file of few kilobytes sees a whole nucleus."""

SMALL, LARGE = 2.0, 2.8
"""Blob filters' scales, pooled pixels: radii of about 2.3 and 3.2 µm."""

NUCLEUS = 0.15
"""Response of the large blob filter from which on something counts as a nucleus."""

TISSUE_POOL = 16
TISSUE_WEIGHTS, TISSUE_BIAS = (28.0, -26.0), -3.0
"""Logit of cancer from the mean hematoxylin and eosin around."""

TUMOR_WEIGHTS = {"small": -26.0, "large": 14.0, "hematoxylin": 14.0, "eosin": -40.0, "cancer": 3.0}
TUMOR_BIAS = 5.0
"""Logit of tumor against background cell."""


class Graph:
    """Collects nodes; every method adds one operator and returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: NDArray[np.generic] | float) -> str:
        name = f"constant_{len(self.constants)}"
        array = np.asarray(value, dtype=np.float32) if isinstance(value, float) else value
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def affine(self, parts: Sequence[tuple[float, str]], bias: float) -> str:
        total = self.constant(bias)
        for weight, part in parts:
            total = self.add("Add", total, self.add("Mul", part, self.constant(weight)))
        return total

    def channel(self, tensor: str, index: int) -> str:
        ends = [np.array([n], dtype=np.int64) for n in (index, index + 1, 1)]
        return self.add("Slice", tensor, *(self.constant(end) for end in ends))

    def mean_around(self, tensor: str, side: int) -> str:
        return self.add("AveragePool", tensor, kernel_shape=[side, side], pads=[side // 2] * 4)

    def pool(self, tensor: str, factor: int) -> str:
        return self.add("AveragePool", tensor, kernel_shape=[factor, factor], strides=[factor, factor])

    def enlarge(self, tensor: str, factor: int) -> str:
        scales = self.constant(np.array([1, 1, factor, factor], dtype=np.float32))
        return self.add(
            "Resize", tensor, "", scales, mode="linear", coordinate_transformation_mode="half_pixel"
        )

    def dyes(self, rgb: str, factor: int) -> tuple[str, str]:
        """Amounts of hematoxylin and eosin, averaged over squares of `factor` pixels."""
        vectors = np.array([HEMATOXYLIN, EOSIN])
        unmix = np.linalg.pinv(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T / -np.log(10)
        light = self.add("Log", self.add("Max", rgb, self.constant(0.02)))
        kernel = self.constant(unmix.astype(np.float32).reshape(2, 3, 1, 1))
        amounts = self.pool(self.add("Conv", light, kernel), factor)
        return self.channel(amounts, 0), self.channel(amounts, 1)

    def blobs(self, tensor: str, sigma: float) -> str:
        """Scale-normalized negative Laplacian of a Gaussian: high in the middle of blobs of radius √2 σ."""
        reach = int(np.ceil(3.5 * sigma))
        pads = self.constant(np.array([0, 0, reach, reach] * 2, dtype=np.int64))
        padded = self.add("Pad", tensor, pads, mode="reflect")
        return self.add("Conv", padded, self.constant(_negative_laplacian(sigma, reach)[None, None]))

    def model(self, name: str, channels: int, classes: int, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", channels, SIZE, SIZE])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", classes, SIZE, SIZE])],
            self.constants,
        )
        model = helper.make_model(
            graph,
            producer_name="softctm",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def tissue_network() -> onnx.ModelProto:
    """RGB (N, 3, 1024, 1024) in 0 … 1 → logits (N, 2, 1024, 1024) of background and cancer."""
    graph = Graph()
    means = [graph.mean_around(dye, 5) for dye in graph.dyes("input", TISSUE_POOL)]
    cancer = graph.affine(list(zip(TISSUE_WEIGHTS, means, strict=True)), TISSUE_BIAS)
    half = graph.add("Mul", cancer, graph.constant(0.5))
    logits = graph.add("Concat", graph.add("Neg", half), half, axis=1)
    return graph.model("tissue", 3, 2, graph.enlarge(logits, TISSUE_POOL))


def cell_network(fold: int) -> onnx.ModelProto:
    """RGB and tissue probabilities (N, 5, 1024, 1024) → probabilities (N, 3, …): none, BC, TC.

    The folds differ a little in what they take for a nucleus, as trained ones would.
    """
    spread = (fold - FOLDS // 2) / FOLDS
    graph = Graph()
    channels = [np.array(ends, dtype=np.int64) for ends in ([0], [3], [1])]
    rgb = graph.add("Slice", "input", *(graph.constant(ends) for ends in channels))
    hematoxylin, eosin = graph.dyes(rgb, CELL_POOL)
    features = {
        "small": graph.blobs(hematoxylin, SMALL * (1 + 0.1 * spread)),
        "large": graph.blobs(hematoxylin, LARGE * (1 + 0.1 * spread)),
        "hematoxylin": graph.mean_around(hematoxylin, 15),
        "eosin": graph.mean_around(eosin, 15),
        "cancer": graph.pool(graph.channel("input", 4), CELL_POOL),
    }
    threshold = NUCLEUS * (1 + 0.2 * spread)
    nucleus = graph.add("Sigmoid", graph.affine([(30.0, features["large"])], -30.0 * threshold))
    tumor = graph.add(
        "Sigmoid", graph.affine([(w, features[name]) for name, w in TUMOR_WEIGHTS.items()], TUMOR_BIAS)
    )
    tumor_cell = graph.add("Mul", nucleus, tumor)
    background_cell = graph.add("Sub", nucleus, tumor_cell)
    none = graph.add("Sub", graph.constant(1.0), nucleus)
    probabilities = graph.add("Concat", none, background_cell, tumor_cell, axis=1)
    return graph.model(f"cell_fold{fold}", 5, 3, graph.enlarge(probabilities, CELL_POOL))


def write(folder: Path) -> None:
    """Write all networks and their manifest to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(tissue_network(), folder / "tissue.onnx")
    for fold in range(FOLDS):
        onnx.save(cell_network(fold), folder / f"cell_fold{fold}.onnx")
    rgb = ["red", "green", "blue"]
    tissue_classes, cell_classes = ["background", "cancer"], ["none", "background_cell", "tumor_cell"]
    stages = {
        "tissue": {
            "input": {"size": SIZE, "mpp": 0.8, "channels": rgb},
            "heads": [{"name": "tissue", "classes": tissue_classes, "activation": "logits"}],
            "networks": [{"files": {"float32": _file(folder / "tissue.onnx")}}],
        },
        "cells": {
            "input": {
                "size": SIZE,
                "mpp": 0.2,
                "channels": [*rgb, *(f"tissue.{name}" for name in tissue_classes)],
            },
            "heads": [{"name": "cells", "classes": cell_classes, "activation": "probabilities"}],
            "networks": [
                {"fold": fold, "files": {"float32": _file(folder / f"cell_fold{fold}.onnx")}}
                for fold in range(FOLDS)
            ],
        },
    }
    Manifest.model_validate(
        {
            "schema_version": 2,
            "task": "cell-points",
            "name": "hand-set",
            "version": "1.0.0",
            "description": "Set by hand for synthetic pairs, not trained: for tests only",
            "licenses": ["Apache-2.0"],
            "stages": stages,
            "postprocessing": {"method": "peaks"},
        }
    ).write(folder)


def _file(path: Path) -> dict[str, str]:
    return {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _negative_laplacian(sigma: float, reach: int) -> NDArray[np.float32]:
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    squared = (x**2 + y**2) / (2 * sigma**2)
    kernel = (1 - squared) * np.exp(-squared) / (np.pi * sigma**2)
    # Cut off, it would no longer ignore what is even.
    return np.asarray(kernel - kernel.mean(), dtype=np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the hand-set networks.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    write(parser.parse_args().folder)
