"""The score by organ and by tissue region: where a detector fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.ocelot import TISSUE_BACKGROUND, TISSUE_CANCER, TISSUE_UNKNOWN
from softctm.evaluation.bootstrap import Bootstrap, Estimate
from softctm.evaluation.matching import CellTable, Match
from softctm.evaluation.scores import (
    CLASSES,
    FN,
    FP,
    TP,
    by_class_name,
    named_scores,
    ratio,
    tally,
)
from softctm.evaluation.truth import GroundTruth
from softctm.pair import ZOOM
from softctm.readers.geometry import tissue_window

REGIONS = {"cancer area": TISSUE_CANCER, "background": TISSUE_BACKGROUND}
"""The tissue regions that cells are told apart by, with their values in the annotation."""


@dataclass(frozen=True)
class Subgroup:
    """The score within a part of the data.

    Attributes
    ----------
    name : str
    pairs : int
        Pairs with at least one true or predicted cell in it, for an organ all of its pairs.
    true, predicted : mapping of str to int
        Cells by class, `BC` and `TC`.
    figures : mapping of str to Estimate
        `precision_bc`, `recall_bc`, `f1_bc`, `precision_tc`, `recall_tc`, `f1_tc`, `mean_f1`; NaN where there
        is nothing to divide by.
    """

    name: str
    pairs: int
    true: Mapping[str, int]
    predicted: Mapping[str, int]
    figures: Mapping[str, Estimate]


def by_organ(counts: NDArray[np.int64], organs: Sequence[str | None], bootstrap: Bootstrap) -> list[Subgroup]:
    """Score each organ's pairs; pairs without a known organ are left out.

    Parameters
    ----------
    counts : (pairs, 2, 3) int64
    organs : sequence of str or None
        One a pair.
    bootstrap : Bootstrap
        Resamples all pairs, so that the number of an organ's pairs varies too.
    """
    groups = []
    for organ in sorted({name for name in organs if name is not None}):
        member = np.array([name == organ for name in organs])
        within = np.where(member[:, None, None], counts, 0)
        pooled = within.sum(axis=0)
        figures = bootstrap.estimates(within, lambda sums: named_scores(sums, undefined=np.nan))
        true, predicted = pooled[:, TP] + pooled[:, FN], pooled[:, TP] + pooled[:, FP]
        groups.append(Subgroup(organ, int(member.sum()), _by_class(true), _by_class(predicted), figures))
    return groups


@dataclass(frozen=True)
class CellRegions:
    """The annotated tissue under every cell: 1 background, 2 cancer area, 255 unknown, uint8."""

    predicted: NDArray[np.uint8]
    true: NDArray[np.uint8]


def cell_regions(predicted: CellTable, true: CellTable, truth: GroundTruth) -> CellRegions:
    """Look up the tissue annotation under every cell; unknown where a pair has none.

    A cell at (x, y) of the cell patch lies over the tissue patch's pixel (x₀ + ⌊x / 4⌋, y₀ + ⌊y / 4⌋), with
    (x₀, y₀) the corner of the cell patch's window.

    Raises
    ------
    InputError
        If an annotation or a pair's geometry is malformed.
    """
    tables = (predicted, true)
    regions = tuple(np.full(len(table), TISSUE_UNKNOWN, np.uint8) for table in tables)
    for i, pair in enumerate(truth.pairs):
        if pair.annotated is None or not pair.has_tissue:
            continue
        labels = pair.annotated.tissue_labels()
        window = tissue_window(pair.annotated.metadata, pair.name)
        for table, region in zip(tables, regions, strict=True):
            rows = slice(*np.searchsorted(table.pair, [i, i + 1]))
            region[rows] = labels[window.y + table.y[rows] // ZOOM, window.x + table.x[rows] // ZOOM]
    return CellRegions(*regions)


def by_region(
    matched: Match, predicted: CellTable, true: CellTable, regions: CellRegions, bootstrap: Bootstrap
) -> list[Subgroup]:
    """Score the cells in annotated cancer area and in annotated background; unknown tissue is left out.

    Matching is that of the whole patch, so that no match is lost at a border. Recall is over the true cells
    in the region, precision over the predictions in it, F1 their harmonic mean.
    """
    groups = []
    for name, value in REGIONS.items():
        inside, claimed = regions.true == value, regions.predicted == value
        parts = np.stack(
            [
                tally(predicted, claimed & matched.is_tp, bootstrap.pairs),
                tally(predicted, claimed, bootstrap.pairs),
                tally(true, inside & matched.found, bootstrap.pairs),
                tally(true, inside, bootstrap.pairs),
            ],
            axis=-1,
        )
        pooled = parts.sum(axis=0)
        pairs = int((parts.sum(axis=(1, 2)) > 0).sum())
        figures = bootstrap.estimates(parts, _region_figures)
        groups.append(Subgroup(name, pairs, _by_class(pooled[:, 3]), _by_class(pooled[:, 1]), figures))
    return groups


def _region_figures(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Scores of (…, 2, 4): right predictions, predictions, found true cells, true cells."""
    right, claimed, found, present = np.moveaxis(sums, -1, 0)
    precision, recall = ratio(right, claimed, np.nan), ratio(found, present, np.nan)
    # One of the two may be 0 / 0: no predictions where there are cells, or the other way round; F1 is 0 then.
    product, total = np.nan_to_num(precision) * np.nan_to_num(recall), np.nan_to_num(precision + recall)
    f1 = np.where(claimed + present > 0, ratio(2 * product, total, 0.0), np.nan)
    return by_class_name(precision, recall, f1)


def _by_class(counts: NDArray[np.int64]) -> dict[str, int]:
    """(2,) counts by the classes' abbreviations."""
    return {cell_class.short: int(count) for cell_class, count in zip(CLASSES, counts, strict=True)}
