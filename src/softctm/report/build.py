"""The report: predictions, their evaluation where there is truth, and a viewer, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.errors import PairError
from softctm.evaluation.comparison import Comparison
from softctm.evaluation.purity import tumor_purity
from softctm.evaluation.result import Evaluation, PairResult
from softctm.evaluation.scores import precision_recall_f1
from softctm.evaluation.tissue import read_tissue_map
from softctm.points import CellPoints
from softctm.readers import PairSource
from softctm.report.page import Page, Tab, Viewer, render
from softctm.report.sections import highlights_with_truth, sections_with_truth
from softctm.report.viewer import (
    ViewedPair,
    counts_by_stop,
    number,
    pair_entry,
    stops_with_truth,
    stops_without_truth,
)
from softctm.report.without_truth import highlights_without_truth, sections_without_truth

MANY_CELLS = 10
"""Annotated cells from which on a pair may be worst, median or best; F1 of fewer is a matter of chance."""

_RANKS = ("worst", "median", "best")
_PURITIES = ("low", "middle", "high")
_WORDS = {
    _RANKS: "Worst, median and best by the F1 of all cells of a pair, among pairs with at least "
    f"{MANY_CELLS} annotated cells.",
    _PURITIES: "Pairs of low, middle and high predicted tumor purity.",
}


@dataclass(frozen=True, eq=False)
class ReportInput:
    """What a report is made of.

    Attributes
    ----------
    title : str
    names : sequence of str
        One a pair, in the order of `image_0`, `image_1`, …
    predictions : sequence of CellPoints
        One a pair.
    evaluation : Evaluation, optional
        Of these predictions; without it the page shows the cells and the purity.
    source : PairSource, optional
        Where the images are; without it the page has no viewer.
    source_index : sequence of int
        Each pair's number in `source`.
    tissue_maps : sequence of Path or None
        Each pair's predicted tissue map; empty where there are none.
    comparison : Comparison, optional
        Of several predictions, these among them.
    facts, warnings : sequence of str
        Lines for the head of the page.
    each : int
        How many worst, how many median and how many best pairs the viewer shows.
    """

    title: str
    names: Sequence[str]
    predictions: Sequence[CellPoints]
    evaluation: Evaluation | None = None
    source: PairSource | None = None
    source_index: Sequence[int] = ()
    tissue_maps: Sequence[Path | None] = ()
    comparison: Comparison | None = None
    facts: Sequence[str] = ()
    warnings: Sequence[str] = ()
    each: int = 3


def build_report(given: ReportInput) -> str:
    """Make the page.

    Images are read only for the pairs that are shown; one that cannot be read is named in a warning instead.

    Returns
    -------
    str
        An HTML document that needs no other file and no network.
    """
    warnings = list(given.warnings)
    viewed = _viewed_pairs(given, warnings)
    shown = {index: place for place, index in enumerate(viewed)}
    result = given.evaluation
    if result is not None:
        highlights = highlights_with_truth(result)
        sections = sections_with_truth(result, given.names, shown, given.comparison)
    else:
        highlights = highlights_without_truth(given.predictions)
        sections = sections_without_truth(given.predictions, given.names, shown)
    return render(
        Page(
            title=given.title,
            facts=[*given.facts, f"{len(given.names)} pairs"],
            highlights=highlights,
            sections=sections,
            viewer=_viewer(given, viewed) if viewed else None,
            warnings=list(dict.fromkeys(warnings)),
        )
    )


def spread(order: Sequence[int], each: int, groups: tuple[str, str, str]) -> dict[int, str]:
    """Choose from the beginning, the middle and the end.

    Parameters
    ----------
    order : sequence of int
        Pairs in order of merit.
    each : int
        How many of each; a shorter list is divided in three.
    groups : three str
        What the three are called.

    Returns
    -------
    dict of int to str
        Chosen pair → its group, in the given order.
    """
    side = min(each, len(order) // 3 or len(order) // 2)
    middle = order[side : len(order) - side]
    skip = max(len(middle) - each, 0) // 2
    parts = (order[:side], middle[skip : skip + each], order[len(order) - side :])
    return {index: group for group, part in zip(groups, parts, strict=True) for index in part}


def pair_f1(pair: PairResult) -> float:
    """F1 of a pair's cells of both classes together; NaN without any true or predicted cell."""
    return float(precision_recall_f1(pair.counts.sum(axis=0), undefined=np.nan)[2])


def by_f1(pairs: Sequence[PairResult]) -> list[int]:
    """Numbers of the pairs that compete, from the lowest F1 to the highest; see `MANY_CELLS`.

    The F1 of all cells, because a pair's mean over classes hangs on the rarer one's few cells. Where no pair
    has many cells, all that have any compete.
    """
    competing = [pair for pair in pairs if len(pair.truth.points) >= MANY_CELLS]
    competing = competing or [pair for pair in pairs if np.isfinite(pair_f1(pair))]
    return [pair.index for pair in sorted(competing, key=pair_f1)]


def _viewed_pairs(given: ReportInput, warnings: list[str]) -> dict[int, ViewedPair]:
    """Read the chosen pairs, by their number."""
    if given.source is None:
        return {}
    result = given.evaluation
    if result is not None:
        chosen = spread(by_f1(result.pairs), given.each, _RANKS)
    else:
        purity = np.array([tumor_purity(points) for points in given.predictions])
        chosen = spread(list(np.argsort(purity)[: np.isfinite(purity).sum()]), given.each, _PURITIES)
    viewed = {}
    for index, group in chosen.items():
        try:
            pair = given.source.read(given.source_index[index])
        except PairError as error:
            warnings.append(f"Not in the viewer: {error}")
            continue
        scored = result.pairs[index] if result is not None else None
        viewed[int(index)] = ViewedPair(
            pair=pair,
            predicted=given.predictions[index],
            group=group,
            detail=_detail(scored, given.predictions[index]),
            true=scored.truth.points if scored else None,
            match=scored.match if scored else None,
            tissue=_tissue(given, index, scored),
        )
    warnings += given.source.warnings
    return viewed


def _detail(scored: PairResult | None, predicted: CellPoints) -> str:
    if scored is None:
        return f"purity {number(tumor_purity(predicted), 2)}"
    organ = f"{scored.truth.organ}, " if scored.truth.organ else ""
    return f"{organ}F1 {number(pair_f1(scored), 2)}"


def _tissue(given: ReportInput, index: int, scored: PairResult | None) -> Mapping[str, NDArray[np.uint8]]:
    tissue = {}
    if scored is not None and scored.truth.annotated is not None and scored.truth.has_tissue:
        tissue["annotated"] = scored.truth.annotated.tissue_labels()
    path = given.tissue_maps[index] if given.tissue_maps else None
    if path is not None:
        tissue["predicted"] = read_tissue_map(path)
    return tissue


def _viewer(given: ReportInput, viewed: Mapping[int, ViewedPair]) -> Viewer:
    result = given.evaluation
    true = result.truth.points if result is not None else [CellPoints.empty()] * len(given.predictions)
    counts = counts_by_stop(given.predictions, true)
    entries = [pair_entry(pair, counts[index]) for index, pair in viewed.items()]
    pooled = counts.sum(axis=0)
    return Viewer(
        tabs=[
            Tab(pair.pair.name, pair.group, pair.detail, entry["tissue"])
            for pair, entry in zip(viewed.values(), entries, strict=True)
        ],
        entries=entries,
        stops=stops_with_truth(pooled, pooled=True) if result is not None else stops_without_truth(pooled),
        choice=_WORDS[_RANKS if result is not None else _PURITIES],
        pair_count=len(given.names),
        with_truth=result is not None,
    )
