"""Data sets of annotated nuclei: one file per layout, and a table of them."""

from __future__ import annotations

from pathlib import Path

from softctm.datasets.nuclei.base import UNTYPED, NucleiDataset, NucleiLabels
from softctm.datasets.nuclei.consep import CoNSeP
from softctm.datasets.nuclei.labels import LabelImages
from softctm.datasets.nuclei.monuseg import MoNuSeg
from softctm.datasets.nuclei.pannuke import PanNuke
from softctm.datasets.nuclei.results import Results
from softctm.errors import InputError

__all__ = ["NUCLEI_DATASETS", "UNTYPED", "NucleiDataset", "NucleiLabels", "open_nuclei"]

NUCLEI_DATASETS: dict[str, type[NucleiDataset]] = {
    "labels": LabelImages,
    "pannuke": PanNuke,
    "consep": CoNSeP,
    "results": Results,
    "monuseg": MoNuSeg,
}
"""Name → class: `recognizes(folder)` says whether a folder has its layout, the class opens it."""


def open_nuclei(folder: Path) -> NucleiDataset:
    """Open a folder of annotated nuclei, by whichever layout it has.

    Parameters
    ----------
    folder : Path
        Label images (`images`, `instances`, `types`), PanNuke's arrays, CoNSeP's or MoNuSeg's archive, or
        what `softctm nuclei` wrote.

    Raises
    ------
    InputError
        If it is missing, of no known layout, or malformed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder of annotated nuclei")
    for kind in NUCLEI_DATASETS.values():
        if kind.recognizes(folder):
            return kind(folder)
    raise InputError(f"{folder}: none of the layouts {', '.join(NUCLEI_DATASETS)}; arrange it as one of them")
