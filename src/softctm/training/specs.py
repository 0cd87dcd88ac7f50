"""What a task's configuration says of its networks."""

from __future__ import annotations

from softctm.model.tasks import CELL_CLASSES
from softctm.networks import NetworkSpec
from softctm.training.config import Task, TaskConfig

TISSUE_CLASSES = ("background", "cancer")
"""What is annotated; unknown tissue is not a class to learn."""


def network_spec(task: Task, config: TaskConfig) -> NetworkSpec:
    """What the networks of a task are made of."""
    classes = TISSUE_CLASSES if task == "tissue" else CELL_CLASSES
    sees_tissue = task == "cells" and config.coupling != "none"
    n = config.network
    context_channels = len(TISSUE_CLASSES) if sees_tissue else 0
    return NetworkSpec(
        n.encoder, n.depth, n.decoder_channels, context_channels, len(classes), n.downsampling, n.looks
    )
