"""What a trained network learned from: kept beside its weights, and compared before it is used again."""

from __future__ import annotations

import logging
from pathlib import Path

from softctm.networks.weights import stored_facts

logger = logging.getLogger(__name__)

_DATA = "trained_on"
"""A weights file's fact: the digest of the data."""


def data_fact(digest: str) -> dict[str, str]:
    """What a weights file says of the data, by their digest."""
    return {_DATA: digest}


def check_unchanged(path: Path, digest: str) -> None:
    """Warn where a trained network learned from other data than those of now.

    Parameters
    ----------
    path : Path
        Its weights; older files do not say what they learned from.
    digest : str
        Of the data as they are now.

    Raises
    ------
    TrainingError
        If the file cannot be read.
    """
    if stored_facts(path).get(_DATA, digest) != digest:
        logger.warning(
            "%s: was trained on data that have changed since; delete its folder to train it again", path
        )
