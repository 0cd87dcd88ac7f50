"""The evaluation as tables, one CSV each, in long form so that any program can sort and draw them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from softctm.evaluation.bootstrap import Estimate
from softctm.evaluation.comparison import Comparison
from softctm.evaluation.confusion import OUTCOMES
from softctm.evaluation.result import Evaluation, PairResult
from softctm.evaluation.scores import CLASSES
from softctm.points import CellClass
from softctm.storage.files import write_bytes_atomically, write_json_atomically

Row = dict[str, Any]

CELL_COLUMNS = (
    "index", "name", "outcome", "class", "x", "y", "score", "true_x", "true_y", "distance_px"
)  # fmt: skip
"""Columns of the table of cells, which may have no rows to tell them from."""


_TABLES = ("figures", "pairs", "cells", "curves", "reliability", "confusion", "distances")
EVALUATION_FILES = ("evaluation.json", *(f"{name}.csv" for name in _TABLES))
"""What `write_evaluation` writes; the first tells whose they are."""

COMPARISON_FILES = ("comparison.json", "ranking.csv", "pairwise.csv")
"""What `write_comparison` writes; the first tells whose they are."""


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `evaluation.json` and a CSV for each table of `evaluation_tables` into an existing folder.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    write_json_atomically(folder / EVALUATION_FILES[0], evaluation.to_json(), indent=1)
    _write_tables(evaluation_tables(evaluation), folder)


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write `comparison.json`, `ranking.csv` and `pairwise.csv` into an existing folder.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    write_json_atomically(folder / COMPARISON_FILES[0], comparison.to_json(), indent=1)
    _write_tables(comparison_tables(comparison), folder)


def evaluation_tables(evaluation: Evaluation) -> dict[str, list[Row]]:
    """All tables by name.

    `figures`: every figure with its interval; `pairs`: counts, scores and purity of each pair; `cells`: every
    TP, FP and FN; `curves`: precision, recall and F1 over confidence; `reliability`: share of TP by
    score; `confusion`; `distances`: TP by distance.
    """
    return {
        "figures": list(_figure_rows(evaluation)),
        "pairs": [_pair_row(pair) for pair in evaluation.pairs],
        "cells": [row for pair in evaluation.pairs for row in _cell_rows(pair)],
        "curves": list(_curve_rows(evaluation)),
        "reliability": list(_reliability_rows(evaluation)),
        "confusion": [
            {"true": true, "predicted": predicted, "cells": int(evaluation.confusion.matrix[i, j])}
            for i, true in enumerate(OUTCOMES)
            for j, predicted in enumerate(OUTCOMES)
            if (true, predicted) != ("none", "none")
        ],
        "distances": [
            {"class": name, "from_px": i, "to_px": i + 1, "true_positives": int(number)}
            for name, errors in evaluation.distances.items()
            for i, number in enumerate(errors.histogram)
        ],
    }


def comparison_tables(comparison: Comparison) -> dict[str, list[Row]]:
    """`ranking`: mean F1 and rank distribution of each; `pairwise`: every two against each other."""
    return {
        "ranking": [
            {"name": ranked.name, "rank": ranked.rank, **_estimate("mean_f1", ranked.mean_f1)}
            | {"mean_rank": ranked.mean_rank}
            | {f"share_rank_{i + 1}": float(share) for i, share in enumerate(ranked.rank_distribution)}
            for ranked in comparison.ranking
        ],
        "pairwise": [
            {
                "first": two.first,
                "second": two.second,
                **_estimate("difference", two.difference),
                "probability_first_outranks_second": two.probability,
            }
            for two in comparison.pairwise
        ],
    }


def _figure_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Every figure: section, group within it, name, value, low, high."""
    for name, value in evaluation.challenge.items():
        yield {"section": "challenge", "group": "all", "figure": name, "value": value}
    groups: list[tuple[str, str, Mapping[str, Estimate]]] = [("score", "all", evaluation.figures)]
    groups += [("organ", group.name, group.figures) for group in evaluation.organs]
    groups += [("region", group.name, group.figures) for group in evaluation.regions]
    groups.append(("confusion", "all", evaluation.confusion.figures))
    for name, curve in evaluation.confidence.curves.items():
        groups.append(("best threshold", name, {"threshold": curve.best_threshold, **curve.at_best}))
    groups.append(("best threshold", "all", {"mean_f1": evaluation.confidence.mean_f1_at_best}))
    groups += [("calibration", name, part.figures) for name, part in evaluation.calibration.items()]
    groups += [("distance", name, part.figures) for name, part in evaluation.distances.items()]
    groups.append(("purity", "all", evaluation.purity.figures))
    groups += [("tissue", part.name, part.figures) for part in evaluation.tissue]
    for section, group, figures in groups:
        for name, figure in figures.items():
            yield {"section": section, "group": group, "figure": name} | _interval(figure)


def _pair_row(pair: PairResult) -> Row:
    """One pair in one row."""
    row: Row = {"index": pair.index, "name": pair.truth.name, "organ": pair.truth.organ}
    for cell_class, (tp, fp, fn) in zip(CLASSES, pair.counts.tolist(), strict=True):
        short = cell_class.short.lower()
        row |= {f"tp_{short}": tp, f"fp_{short}": fp, f"fn_{short}": fn}
    return row | {
        **pair.scores,
        "detection_f1": pair.detection_f1,
        "true_purity": pair.true_purity,
        "predicted_purity": pair.predicted_purity,
    }


def _cell_rows(pair: PairResult) -> Iterator[Row]:
    """TP and FP in the predictions' order, then FN in the truth's."""
    points, true = pair.predicted, pair.truth.points
    start: Row = {"index": pair.index, "name": pair.truth.name}
    for i in range(len(points)):
        row = start | {
            "outcome": "FP",
            "class": CellClass(int(points.label[i])).short,
            "x": int(points.x[i]),
            "y": int(points.y[i]),
            "score": float(str(points.score[i])),
        }
        partner = int(pair.match.true_cell[i])
        if partner >= 0:
            row |= {
                "outcome": "TP",
                "true_x": int(true.x[partner]),
                "true_y": int(true.y[partner]),
                "distance_px": float(pair.match.distance[i]),
            }
        yield row
    for i in (~pair.match.found).nonzero()[0].tolist():
        yield start | {
            "outcome": "FN",
            "class": CellClass(int(true.label[i])).short,
            "true_x": int(true.x[i]),
            "true_y": int(true.y[i]),
        }


def _curve_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Class and threshold in a row."""
    for name, curve in evaluation.confidence.curves.items():
        for i, threshold in enumerate(curve.thresholds):
            row: Row = {"class": name, "threshold": float(threshold)}
            for figure in ("precision", "recall", "f1"):
                band = getattr(curve, figure)[i]
                row |= _estimate(figure, Estimate(float(band.value), float(band.low), float(band.high)))
            yield row


def _reliability_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Class and score bin in a row."""
    for name, part in evaluation.calibration.items():
        for i, number in enumerate(part.predictions.tolist()):
            rate = part.precision[i]
            yield {
                "class": name,
                "from_score": float(part.edges[i]),
                "to_score": float(part.edges[i + 1]),
                "predictions": number,
                "mean_score": float(part.mean_score[i]),
            } | _estimate("precision", Estimate(float(rate.value), float(rate.low), float(rate.high)))


def _interval(figure: Estimate) -> Row:
    return {"value": figure.value, "low": figure.low, "high": figure.high}


def _estimate(name: str, figure: Estimate) -> Row:
    return {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}


def _write_tables(tables: Mapping[str, Iterable[Row]], folder: Path) -> None:
    for name, rows in tables.items():
        columns = CELL_COLUMNS if name == "cells" else ()
        write_bytes_atomically(folder / f"{name}.csv", csv_text(rows, columns).encode())


def csv_text(rows: Iterable[Row], columns: Sequence[str] = ()) -> str:
    """Rows as CSV with a header: the given columns, then other keys as they appear; undefined is empty."""
    rows = list(rows)
    columns = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                key: "" if isinstance(value, float) and math.isnan(value) else value
                for key, value in row.items()
            }
        )
    return text.getvalue()
