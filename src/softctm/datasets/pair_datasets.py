"""Datasets of cell/tissue pairs by name. A new one is one file beside `ocelot` and a line here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from softctm.datasets.ocelot import AnnotatedPair, load_release
from softctm.datasets.patients import PatientKey


class DatasetLoader(Protocol):
    """Lists the pairs of a dataset on disk, sorted by ID."""

    def __call__(self, folder: Path, subset: str = ..., patient_key: PatientKey = ...) -> list[AnnotatedPair]:
        """`InputError` if the folder holds no such dataset, or no pair of that subset."""


DATASETS: dict[str, DatasetLoader] = {"ocelot": load_release}
"""Name → loader. One contract test runs over all entries."""
