"""What there is to learn, counted before training starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softctm.errors import TrainingError

logger = logging.getLogger(__name__)


def check_learnable(
    what: str, counts: NDArray[np.floating], classes: Sequence[str], unit: str, patients: int
) -> None:
    """Log how much there is of each class; warn where one is missing, refuse where all are.

    Parameters
    ----------
    what : str
        The network, in words.
    counts : (N, classes)
        Of every patch that the network is trained on.
    classes : sequence of str
        Their names.
    unit : str
        What is counted, such as "cells".
    patients : int
        How many the patches are of.

    Raises
    ------
    TrainingError
        If there is nothing to learn.
    """
    total = counts.sum(0)
    listed = ", ".join(f"{name} {number:.0f}" for name, number in zip(classes, total, strict=True))
    logger.info("%s: learns from %d pairs of %d patients; %s: %s", what, len(counts), patients, unit, listed)
    missing = [name for name, number in zip(classes, total, strict=True) if number == 0]
    if len(missing) == len(classes):
        raise TrainingError(
            f"{what}: there is nothing to learn: its {len(counts)} pairs have no annotated {unit}; "
            "check the annotations of the data"
        )
    if missing:
        logger.warning(
            "%s: no %s of the class %s among its %d pairs: the network cannot learn to find it",
            what, unit, " or ".join(missing), len(counts),
        )  # fmt: skip
