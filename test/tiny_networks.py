"""Small networks with random, deliberately unsymmetrical weights, and model folders made of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from softctm.ort.graphs import Graph
from softctm.pair import PATCH_SIZE


def network(
    seed: int,
    channels: int,
    classes: int,
    *,
    batch: int | str = "n",
    activation: str | None = None,
    size: int = PATCH_SIZE,
    gain: float = 1.0,
    reduction: int = 1,
) -> bytes:
    """One 5 × 5 convolution (N, channels, size, size) → (N, classes, size, size), then an activation.

    With a `reduction` it works on averages over blocks of so many pixels, and its maps are enlarged again.
    """
    random = np.random.default_rng(seed)
    weights = (gain * random.normal(0, 1, (classes, channels, 5, 5))).astype(np.float32)
    weights -= weights.mean(axis=(1, 2, 3), keepdims=True)
    graph = Graph()
    image = graph.input("input", np.float32, (batch, channels, size, size))
    if reduction > 1:
        image = graph.node("AveragePool", image, kernel_shape=[reduction] * 2, strides=[reduction] * 2)
    output = graph.node("Conv", image, graph.constant(weights), pads=[2] * 4)
    if reduction > 1:
        scales = graph.constant(np.array([1, 1, reduction, reduction], np.float32))
        output = graph.node("Resize", output, "", scales, mode="linear")
    if activation:
        attributes: dict[str, Any] = {"axis": 1} if activation == "Softmax" else {}
        output = graph.node(activation, output, **attributes)
    return graph.model(output)


def with_named_outputs(graph: Graph, values: dict[str, str]) -> bytes:
    """Close a graph whose outputs are to be asked for by name, as exporters write them: name → value."""
    model = onnx.load_model_from_string(graph.model(*values.values()))
    names = {value: name for name, value in values.items()}
    for node in model.graph.node:
        node.output[:] = [names.get(value, value) for value in node.output]
        node.input[:] = [names.get(value, value) for value in node.input]
    for output in model.graph.output:
        output.name = names[output.name]
    return bytes(model.SerializeToString())


def write_folder(folder: Path, *, tissue_classes: int = 2, folds: int = 1, **options: Any) -> Path:
    """A folder in the authors' layout: one tissue network (logits) and cell networks (probabilities)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tissue.onnx").write_bytes(network(0, 3, tissue_classes, **options))
    for fold in range(folds):
        cell = network(fold + 1, 3 + tissue_classes, 3, activation="Softmax", **options)
        (folder / f"cell_fold{fold}.onnx").write_bytes(cell)
    return folder


def write_manifest(folder: Path, **changes: Any) -> dict[str, Any]:
    """Describe a folder's networks in a `model.json`, and return its content; `changes` replace sections."""

    def entry(path: Path) -> dict[str, Any]:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        fold = int(path.stem[-1]) if path.stem[-1].isdigit() else 0
        return {"fold": fold, "files": {"float32": {"path": path.name, "sha256": digest}}}

    rgb = ["red", "green", "blue"]
    manifest = {
        "schema_version": 2,
        "task": "cell-points",
        "name": "tiny",
        "version": "1.2.3",
        "stages": {
            "tissue": {
                "input": {"size": 1024, "mpp": 0.8, "channels": rgb},
                "heads": [{"name": "tissue", "classes": ["background", "cancer"], "activation": "logits"}],
                "networks": [entry(path) for path in sorted(folder.glob("tissue*.onnx"))],
            },
            "cells": {
                "input": {
                    "size": 1024,
                    "mpp": 0.2,
                    "channels": [*rgb, "tissue.background", "tissue.cancer"],
                },
                "heads": [
                    {
                        "name": "cells",
                        "classes": ["none", "background_cell", "tumor_cell"],
                        "activation": "probabilities",
                    }
                ],
                "networks": [entry(path) for path in sorted(folder.glob("cell*.onnx"))],
            },
        },
        "postprocessing": {"method": "peaks"},
        **changes,
    }
    (folder / "model.json").write_text(json.dumps(manifest))
    return manifest
