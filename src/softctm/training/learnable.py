"""What there is to learn, counted before training starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softctm.errors import TrainingError

logger = logging.getLogger(__name__)


def check_learnable(
    what: str,
    counts: NDArray[np.floating],
    classes: Sequence[str],
    unit: str,
    patients: int | None = None,
    samples: str = "pairs",
    unknown: str = "",
) -> None:
    """Log how much there is of each class; warn where one is missing, refuse where all are.

    Parameters
    ----------
    what : str
        The network, in words.
    counts : (N, classes) or (N, classes + 1)
        Of every sample that the network is trained on; the last ones are of unknown class.
    classes : sequence of str
        Their names.
    unit : str
        What is counted, such as "cells".
    patients : int, optional
        How many the samples are of, where it is known.
    samples : str
        What they are, such as "pairs".
    unknown : str
        The name of what is of unknown class: nobody misses it where there is none.

    Raises
    ------
    TrainingError
        If there is nothing to learn.
    """
    total, names = counts.sum(0), [*classes, *([unknown] if unknown else [])]
    listed = ", ".join(f"{name} {number:.0f}" for name, number in zip(names, total, strict=True))
    source = f"{len(counts)} {samples}" + ("" if patients is None else f" of {patients} patients")
    logger.info("%s: learns from %s; %s: %s", what, source, unit, listed)
    missing = [name for name, number in zip(classes, total, strict=False) if number == 0]
    if not total.any():
        raise TrainingError(
            f"{what}: there is nothing to learn: its {len(counts)} {samples} have no annotated {unit}; "
            "check the annotations of the data"
        )
    if missing:
        logger.warning(
            "%s: no %s of the class %s among its %d %s: the network cannot learn to find it",
            what, unit, " or ".join(missing), len(counts), samples,
        )  # fmt: skip
