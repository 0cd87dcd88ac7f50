"""What the page's viewer shows, computed beforehand for every stop of its confidence slider.

The challenge matches greedily by falling confidence, so the match of a prediction depends on no prediction
below it: a cut at any threshold leaves the earlier matches as they are. One match therefore serves all
thresholds; a prediction needs to know only up to which stop it stays, a true cell up to which it is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.ocelot import TISSUE_CANCER, TISSUE_UNKNOWN
from softctm.evaluation.confidence import THRESHOLDS, counts_over_thresholds
from softctm.evaluation.matching import CellTable, Match, match_tables
from softctm.evaluation.scores import CLASSES, challenge_scores, precision_recall_f1
from softctm.pair import CellTissuePair
from softctm.points import CellPoints
from softctm.report.embedded_images import CELL_LIMIT, TISSUE_LIMIT, TISSUE_SIDE, jpeg_uri, outline

STOPS = THRESHOLDS.astype(np.float32)
"""The slider's thresholds: a prediction stays while its score, as float32 as in the challenge, reaches it."""

_NEVER = -1


@dataclass(frozen=True, eq=False)
class ViewedPair:
    """One pair as the viewer shows it.

    Attributes
    ----------
    pair : CellTissuePair
        Images and geometry.
    predicted : CellPoints
        The predicted cells.
    group : str
        Why it is shown: `worst`, `median`, `best`, or nothing.
    detail : str
        A few words beside its name, such as the organ.
    true : CellPoints, optional
        The annotated cells; None without ground truth.
    match : Match, optional
        Which prediction is matched to which annotated cell; goes with `true`.
    tissue : mapping of str to (1024, 1024) uint8
        Tissue labels (1 background, 2 cancer area, 255 unknown) by source: `annotated`, `predicted`.
    """

    pair: CellTissuePair
    predicted: CellPoints
    group: str = ""
    detail: str = ""
    true: CellPoints | None = None
    match: Match | None = None
    tissue: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


def last_stop(score: NDArray[np.float32]) -> NDArray[np.int64]:
    """Index of the last of `STOPS` at which a prediction of that score is still shown, (N,); 0 … 100."""
    return np.searchsorted(STOPS, np.asarray(score, np.float32), side="right").astype(np.int64) - 1


def counts_by_stop(predicted: Sequence[CellPoints], true: Sequence[CellPoints]) -> NDArray[np.int64]:
    """TP, FP and FN of each pair at every stop of the slider.

    Parameters
    ----------
    predicted, true : sequence of CellPoints
        One a pair, equally many; empty points as `true` where nothing is known: all are FP then.

    Returns
    -------
    (pairs, 101, 2, 3) int64
        Pair; stop; BC, TC; TP, FP, FN.
    """
    cells, actual = CellTable.of(predicted), CellTable.of(true)
    return counts_over_thresholds(match_tables(cells, actual), cells, actual, len(predicted))


def number(value: float, digits: int = 4) -> str:
    """A score as the page shows it; a dash where it is not defined."""
    return f"{value:z.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"


def purity(cells: NDArray[np.integer[Any]]) -> float:
    """TC / (BC + TC) of counts (2,) in the order BC, TC; NaN without cells."""
    return float(cells[1] / cells.sum()) if cells.sum() else float("nan")


def stops_with_truth(counts: NDArray[np.int64], *, pooled: bool) -> list[dict[str, Any]]:
    """What the score tables show at each stop, from counts (101, 2, 3).

    The pooled table has the challenge's numbers, which are 0 where a class is neither there nor predicted; a
    single pair's table leaves those out. `both` is of the cells of both classes together.
    """
    rows = []
    for stop in counts:
        named = challenge_scores(stop)
        parts = np.vstack([stop, stop.sum(axis=0)])
        table = np.stack(precision_recall_f1(parts, undefined=np.nan), axis=-1).tolist()
        if pooled:
            table[:2] = [[named[f"{kind}/{c.short}"] for kind in ("Pre", "Rec", "F1")] for c in CLASSES]
        row: dict[str, Any] = {
            name: {
                "tp": tp,
                "fp": fp,
                "fn": fn,
                "precision": number(scores[0]),
                "recall": number(scores[1]),
                "f1": number(scores[2]),
            }
            for name, (tp, fp, fn), scores in zip(
                [*(c.short for c in CLASSES), "both"], parts.tolist(), table, strict=True
            )
        }
        row["mean_f1"] = number(named["mF1"])
        row["purity"] = number(purity(stop[:, 0] + stop[:, 1]), 3)
        row["true_purity"] = number(purity(stop[:, 0] + stop[:, 2]), 3)
        row["summary"] = f"{int(stop[:, :2].sum())} cells, mean F1 {row['mean_f1']}"
        row["curve"] = round(named["mF1"], 5)
        rows.append(row)
    return rows


def stops_without_truth(counts: NDArray[np.int64]) -> list[dict[str, Any]]:
    """What the tables show at each stop without annotations, from counts (101, 2, 3): cells and purity."""
    cells = counts[:, :, :2].sum(axis=2)
    most = max(int(cells[0].sum()), 1)
    return [
        {cell_class.short: {"cells": int(stop[i])} for i, cell_class in enumerate(CLASSES)}
        | {
            "purity": number(purity(stop), 3),
            "summary": f"{int(stop.sum())} cells",
            "curve": round(int(stop.sum()) / most, 4),
        }
        for stop in cells
    ]


def pair_entry(viewed: ViewedPair, counts: NDArray[np.int64]) -> dict[str, Any]:
    """One pair's entry in the page's data; `counts` are its own of `counts_by_stop`, (101, 2, 3)."""
    with_truth = viewed.true is not None and viewed.match is not None
    return {
        "title": viewed.pair.name + (f" · {viewed.detail}" if viewed.detail else ""),
        "cell": jpeg_uri(viewed.pair.cell, CELL_LIMIT),
        "tissue": jpeg_uri(viewed.pair.tissue, TISSUE_LIMIT, TISSUE_SIDE),
        "window": [viewed.pair.window.x, viewed.pair.window.y],
        "regions": _regions(viewed.tissue),
        "stops": stops_with_truth(counts, pooled=False) if with_truth else stops_without_truth(counts),
        **marks(viewed.predicted, viewed.true, viewed.match),
    }


def marks(predicted: CellPoints, true: CellPoints | None, match: Match | None) -> dict[str, list[list[Any]]]:
    """The cells to draw, and up to which stop of the slider each is what it is.

    Returns
    -------
    dict of str to list
        `cells`: x, y, class, last stop at which the prediction stays, score in words, 1 for a TP, of each.
        `truth`, where it is known: x, y, class, last stop at which the cell is found (−1: never), of each.
    """
    stop = last_stop(predicted.score)
    is_tp = match.is_tp if match is not None else np.zeros(len(predicted), bool)
    cells = [
        [int(x), int(y), int(label), int(until), f"{score:.3f}", int(outcome)]
        for x, y, label, until, score, outcome in zip(
            predicted.x, predicted.y, predicted.label, stop, predicted.score, is_tp, strict=True
        )
    ]
    if true is None or match is None:
        return {"cells": cells}
    found_until = np.full(len(true), _NEVER, np.int64)
    found_until[match.found] = stop[match.prediction[match.found]]
    truth = [list(map(int, row)) for row in zip(true.x, true.y, true.label, found_until, strict=True)]
    return {"cells": cells, "truth": truth}


def _regions(tissue: Mapping[str, NDArray[np.uint8]]) -> list[dict[str, str]]:
    regions = []
    for source, labels in tissue.items():
        for kind, value in (("cancer", TISSUE_CANCER), ("unknown", TISSUE_UNKNOWN)):
            path = outline(labels == value)
            if path:
                regions.append({"source": source, "kind": kind, "path": path})
    return regions
