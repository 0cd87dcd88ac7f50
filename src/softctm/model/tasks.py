"""What kinds of model there are: a table by name, one line per task.

A task says what its manifests must hold, and which detector runs such a model. A new one is a file of its own
and a line here; nothing else in the program asks for a task's name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from softctm.model.manifest import AROUND, RGB, Manifest, StageEntry
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP
from softctm.postprocessing.hover import DISTANCE_HEAD, NUCLEUS_HEAD, TOKEN_HEAD, TYPE_HEAD
from softctm.postprocessing.methods import METHODS

TISSUE_CLASSES = ("background", "cancer")
"""Of tissue networks; with some weights a third follows, "unknown"."""

CELL_CLASSES = ("none", "background_cell", "tumor_cell")

_TOLERANCE = 0.1
"""How far, relatively, a model's mpp may lie from the patches' nominal one."""


@dataclass(frozen=True)
class Task:
    """One kind of model.

    Attributes
    ----------
    check : callable
        Raises ValueError, naming the field, where a manifest is not one of this task.
    detector : str
        "module:class" of what runs such a model, imported only when it is asked for. The class takes the
        model and the keyword arguments `device`, `views` and `callers` (threads that will call it at once, if
        it allows that), and has an attribute `callers` (those that may).
    max_views : int
        Views for test-time augmentation that such a model allows; 1 where its numbers have a direction, so
        that those of a turned image are not those of the image, turned back.
    shipped : str
        The folder in `model_weights/` that holds the default model of this kind; "" for the folder itself.
    """

    check: Callable[[Manifest], None]
    detector: str
    max_views: int = 8
    shipped: str = ""


def check_cell_points(manifest: Manifest) -> None:
    """SoftCTM: a tissue stage, and a cell stage that sees the tissue, or does not."""
    _method_among(manifest, "peaks", "watershed")
    if set(manifest.stages) != {"tissue", "cells"}:
        raise ValueError(f"stages: must be tissue and cells, not {', '.join(manifest.stages)}")
    tissue, cells = manifest.stages["tissue"], manifest.stages["cells"]
    labels = _only_head("tissue", tissue)
    if labels not in (TISSUE_CLASSES, (*TISSUE_CLASSES, "unknown")):
        raise ValueError(
            f"stages.tissue.heads[0].classes: must be background, cancer and perhaps unknown, not {labels}"
        )
    if _only_head("cells", cells) != CELL_CLASSES:
        raise ValueError(f"stages.cells.heads[0].classes: must be {', '.join(CELL_CLASSES)}, in this order")
    seen = (*RGB, *(f"tissue.{label}" for label in labels))
    _check_input("tissue", tissue, TISSUE_MPP, RGB)
    _check_input("cells", cells, CELL_MPP, RGB, seen)


def check_joint_cell_points(manifest: Manifest) -> None:
    """Networks that see both patches of a pair at once, and give the cell map and perhaps the tissue map."""
    _method_among(manifest, "peaks", "watershed")
    if set(manifest.stages) != {"cells"}:
        raise ValueError(f"stages: must be cells alone, not {', '.join(manifest.stages)}")
    stage = manifest.stages["cells"]
    _check_input("cells", stage, CELL_MPP, (*RGB, *AROUND))
    given = {head.name: head.classes for head in stage.heads}
    known = {"cells": CELL_CLASSES, "tissue": TISSUE_CLASSES}
    if "cells" not in given or any(known.get(name) != classes for name, classes in given.items()):
        wanted = " and perhaps ".join(f"{name} ({', '.join(classes)})" for name, classes in known.items())
        raise ValueError(f"stages.cells.heads: must be {wanted}")
    if any(head.activation == "none" for head in stage.heads):
        raise ValueError("stages.cells.heads: activations must be logits or probabilities")


def check_nuclei(manifest: Manifest) -> None:
    """Nuclei with outlines and types, as HoVer-Net and CellViT find them: one stage with three heads.

    A fourth head may give tokens, of which embeddings are made.
    """
    _method_among(manifest, "hover")
    if len(manifest.stages) != 1:
        raise ValueError(f"stages: must be one, not {', '.join(manifest.stages)}")
    ((name, stage),) = manifest.stages.items()
    if stage.input.channels != RGB:
        raise ValueError(f"stages.{name}.input.channels: must be ({', '.join(RGB)})")
    heads = {head.name: head for head in stage.heads}
    if set(heads) - {TOKEN_HEAD} != {NUCLEUS_HEAD, DISTANCE_HEAD, TYPE_HEAD} or len(stage.heads) != len(
        heads
    ):
        raise ValueError(
            f"stages.{name}.heads: must be {NUCLEUS_HEAD}, {DISTANCE_HEAD} and {TYPE_HEAD}, and perhaps "
            f"{TOKEN_HEAD}, not {', '.join(head.name for head in stage.heads)}"
        )
    if TOKEN_HEAD in heads and heads[TOKEN_HEAD].width is None:
        raise ValueError(f"stages.{name}.heads, {TOKEN_HEAD}: must have a width, and no classes")
    for kind, least, most in ((NUCLEUS_HEAD, 2, 2), (DISTANCE_HEAD, 2, 2), (TYPE_HEAD, 2, 256)):
        count = len(heads[kind].classes)
        if not least <= count <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise ValueError(f"stages.{name}.heads, {kind}: must have {wanted} classes, not {count}")
        if (heads[kind].activation == "none") != (kind == DISTANCE_HEAD):
            wanted = "none" if kind == DISTANCE_HEAD else "logits or probabilities"
            raise ValueError(f"stages.{name}.heads, {kind}: activation must be {wanted}")


def _method_among(manifest: Manifest, *methods: str) -> None:
    """Refuse methods that are known but do not decode this task's maps."""
    method = manifest.postprocessing["method"]
    if method in METHODS and method not in methods:
        raise ValueError(
            f"postprocessing.method: must be {' or '.join(methods)} for {manifest.task}, not {method}"
        )


def _check_input(name: str, stage: StageEntry, mpp: float, *allowed: tuple[str, ...]) -> None:
    """Refuse another size, mpp or channels than a stage that sees patches can be given."""
    if stage.input.size != PATCH_SIZE:
        raise ValueError(f"stages.{name}.input.size: must be {PATCH_SIZE}, not {stage.input.size}")
    if abs(stage.input.mpp / mpp - 1) > _TOLERANCE:
        raise ValueError(
            f"stages.{name}.input.mpp: must be about {mpp}, the patches' own, not {stage.input.mpp}"
        )
    if stage.input.channels not in allowed:
        wanted = " or ".join("(" + ", ".join(channels) + ")" for channels in allowed)
        raise ValueError(f"stages.{name}.input.channels: must be {wanted}")


def _only_head(name: str, stage: StageEntry) -> tuple[str, ...]:
    """The classes of a stage's one head, which gives logits or probabilities."""
    if len(stage.heads) != 1:
        raise ValueError(f"stages.{name}.heads: must be one, not {len(stage.heads)}")
    if stage.heads[0].activation == "none":
        raise ValueError(f"stages.{name}.heads[0].activation: must be logits or probabilities")
    return stage.heads[0].classes


TASKS: dict[str, Task] = {
    "cell-points": Task(check_cell_points, "softctm.inference.detector:Detector"),
    "joint-cell-points": Task(check_joint_cell_points, "softctm.inference.joint_detector:JointDetector"),
    "nuclei": Task(check_nuclei, "softctm.inference.image_detector:ImageDetector", 1, "nuclei"),
}
"""Name in `model.json` → task."""

OF_PAIRS = ("cell-points", "joint-cell-points")
"""The tasks whose detectors find the cells of pairs."""
