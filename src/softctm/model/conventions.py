"""A folder without `model.json`: `tissue*.onnx` and `cell*.onnx`, by the SoftCTM authors' conventions.

What the files themselves say (channels, classes) becomes a manifest, so that everything after this module has
one to go by.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx

from softctm.errors import ModelError
from softctm.model.manifest import RGB, Head, Manifest, NetworkEntry, NetworkFile, StageEntry, StageInput
from softctm.model.network_file import MANIFEST, read_file
from softctm.model.tasks import CELL_CLASSES, TISSUE_CLASSES
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP
from softctm.storage.names import natural_order

_KNOWN_TISSUE = (*TISSUE_CLASSES, "unknown")


def implied_manifest(folder: Path) -> Manifest:
    """The manifest that a folder of files stands for.

    Tissue networks give logits, cell networks probabilities, and peaks are found by the authors' rule.

    Raises
    ------
    ModelError
        If the folder lacks tissue or cell networks, or a network's shapes fit no model of this kind.
    """
    entries: dict[str, tuple[NetworkEntry, ...]] = {}
    shapes: dict[str, tuple[int | None, int | None]] = {}
    for kind in ("tissue", "cell"):
        paths = sorted(folder.glob(f"{kind}*.onnx"), key=lambda path: natural_order(path.name))
        if not paths:
            raise ModelError(
                f"{folder}: holds neither {MANIFEST} nor {kind}*.onnx; "
                "name a folder with a model by --weights"
            )
        contents = [read_file(path) for path in paths]
        shapes[kind] = _channels_and_classes(contents[0])
        entries[kind] = tuple(
            NetworkEntry(files={"float32": NetworkFile(path=path.name, sha256=_sha256(content))})
            for path, content in zip(paths, contents, strict=True)
        )
    classes = shapes["tissue"][1]
    if classes is None:
        raise ModelError(
            f"{folder}: the tissue network does not say how many classes it gives; write a {MANIFEST}"
        )
    if classes not in (2, 3):
        raise ModelError(
            f"{folder}: the tissue network gives {classes} classes where background, cancer and perhaps "
            "unknown are wanted"
        )
    labels = _KNOWN_TISSUE[:classes]
    sees_tissue = shapes["cell"][0] != len(RGB)
    seen = tuple(f"tissue.{label}" for label in labels) if sees_tissue else ()
    return Manifest(
        task="cell-points",
        name=folder.resolve().name,
        stages={
            "tissue": StageEntry(
                input=StageInput(size=PATCH_SIZE, mpp=TISSUE_MPP, channels=RGB),
                heads=(Head(name="tissue", classes=labels, activation="logits"),),
                networks=entries["tissue"],
            ),
            "cells": StageEntry(
                input=StageInput(size=PATCH_SIZE, mpp=CELL_MPP, channels=(*RGB, *seen)),
                heads=(Head(name="cells", classes=CELL_CLASSES, activation="probabilities"),),
                networks=entries["cell"],
            ),
        },
        postprocessing={"method": "peaks"},
    )


def _channels_and_classes(content: bytes) -> tuple[int | None, int | None]:
    """Second axis of a network's first input and output; None where it is left open or unreadable.

    Files that are no networks are refused when they are opened, by a message of their own.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content)).graph
    except Exception:  # protobuf raises several unrelated kinds
        return None, len(TISSUE_CLASSES)
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    return _second_axis(inputs), _second_axis(list(graph.output))


def _second_axis(values: list[onnx.ValueInfoProto]) -> int | None:
    axes = values[0].type.tensor_type.shape.dim if values else []
    return int(axes[1].dim_value) or None if len(axes) > 1 else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
