"""How far cells depend on where the lattice lies: shares that stay, and what seams do."""

from __future__ import annotations

import csv
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.stats import fisher_exact

from softctm.jobs.slides.cohort import run_cohort
from softctm.jobs.slides.options import SlideOptions
from softctm.slides.lattice import CORE

_SAME_UM = 3.0
"""Cells this close, of one class, are the same: the distance of the challenge's score."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Places in µm, (N, 2), and whether each is a tumor cell, (N,)."""

    place: NDArray[np.float64]
    tumor: NDArray[np.bool_]

    def where(self, chosen: NDArray[np.bool_]) -> Cells:
        """Some of them."""
        return Cells(self.place[chosen], self.tumor[chosen])

    def moved(self, x: float, y: float) -> Cells:
        """The same somewhere else."""
        return Cells(self.place + np.array((x, y)), self.tumor)


def cells_of(slide: Path, options: SlideOptions) -> Cells:
    """The cells that a run finds on a slide."""
    with tempfile.TemporaryDirectory() as folder:
        row = run_cohort([slide], Path(folder), options).rows[0]
        with (Path(folder) / row.name / "cells.csv").open() as file:
            rows = list(csv.DictReader(file))
    place = np.array([(float(each["x_um"]), float(each["y_um"])) for each in rows]).reshape(-1, 2)
    return Cells(place, np.array([each["class"] == "TC" for each in rows], np.bool_))


def agreement(first: Cells, second: Cells) -> dict[str, float]:
    """Share of cells with a partner: F1 of places, and of places with the same class."""
    return {
        "cells": len(first.place),
        "others": len(second.place),
        "same_place": _f1(first, second, with_class=False),
        "same_place_and_class": _f1(first, second, with_class=True),
    }


def at_seams(cells: Cells, other: Cells, width_px: int = 20) -> dict[str, Any]:
    """Cells, and share that another placement of the lattice finds the same, near seams and elsewhere.

    `cells` are in µm of the slide whose lattice is meant, `other` those of another placement moved there.
    `class_changed_p` is how often chance alone would make the shares of changed classes differ as much or
    more (Fisher's exact test; neighbors change together, so that it is rather too small than too large).
    """
    pixel = cells.place / 0.2
    inside = pixel % CORE
    at_border = (inside < width_px) | (inside > CORE - width_px)
    near: NDArray[np.bool_] = np.asarray(at_border.any(axis=1))
    share = 1 - (1 - 2 * width_px / CORE) ** 2
    partners = _partners(cells, other)
    same = partners >= 0
    classes = np.zeros(len(same), np.bool_)
    classes[same] = cells.tumor[same] == other.tumor[partners[same]]
    changed = same & ~classes
    counts = [[int((part & kind).sum()) for kind in (changed, classes)] for part in (near, ~near)]
    return {
        "near_seams": int(near.sum()),
        "expected_near_seams": round(share * len(near), 1),
        "standard_deviation": round(float(np.sqrt(len(near) * share * (1 - share))), 1),
        "found_again_near": float(same[near].mean()),
        "found_again_elsewhere": float(same[~near].mean()),
        "class_changed_near": float(1 - classes[near & same].mean()),
        "class_changed_elsewhere": float(1 - classes[~near & same].mean()),
        "class_changed_p": float(fisher_exact(counts).pvalue),
    }


def _f1(first: Cells, second: Cells, *, with_class: bool) -> float:
    if not len(first.place) or not len(second.place):
        return float(len(first.place) == len(second.place))
    kinds = (False, True) if with_class else (None,)
    pairs = 0
    for kind in kinds:
        a = first if kind is None else first.where(np.asarray(first.tumor == kind))
        b = second if kind is None else second.where(np.asarray(second.tumor == kind))
        pairs += int((_partners(a, b) >= 0).sum())
    return 2 * pairs / (len(first.place) + len(second.place))


def _partners(first: Cells, second: Cells) -> NDArray[np.int64]:
    """The one of `second` that each of `first` is matched to, nearest pairs first; −1 for none."""
    partner = np.full(len(first.place), -1)
    if not len(first.place) or not len(second.place):
        return partner
    trees = KDTree(first.place), KDTree(second.place)
    found = trees[0].sparse_distance_matrix(trees[1], _SAME_UM, output_type="coo_matrix")
    taken = np.zeros(len(second.place), np.bool_)
    for index in np.argsort(found.data, kind="stable"):
        a, b = int(found.row[index]), int(found.col[index])
        if partner[a] < 0 and not taken[b]:
            partner[a], taken[b] = b, True
    return partner
