"""The page's tables and plots without ground truth: the cells and the purity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from softctm.evaluation.matching import CellTable
from softctm.evaluation.purity import tumor_purity
from softctm.evaluation.scores import CLASSES
from softctm.points import CellClass, CellPoints
from softctm.report import plots
from softctm.report.page import Figure, Highlight, Row, Section, Table
from softctm.report.viewer import number


def highlights_without_truth(predictions: Sequence[CellPoints]) -> list[Highlight]:
    """The figures at the top of a page without ground truth."""
    background, tumor = (sum(points.count(c) for points in predictions) for c in CLASSES)
    total = background + tumor
    return [
        Highlight("Tumor purity", number(tumor / total if total else np.nan, 3), "TC / (TC + BC), all pairs"),
        Highlight("Cells", f"{total:,}", f"{len(predictions)} pairs"),
        Highlight("Tumor cells", f"{tumor:,}", "TC"),
        Highlight("Background cells", f"{background:,}", "BC"),
    ]


def sections_without_truth(
    predictions: Sequence[CellPoints], names: Sequence[str], shown: Mapping[int, int]
) -> list[Section]:
    """All sections of a page without ground truth: the cells and the purity."""
    cells = CellTable.of(predictions)
    purity = np.array([tumor_purity(points) for points in predictions])
    figures = [
        Figure(
            "How sure the predictions are.",
            f"Histogram of the confidence of {len(cells)} cells by class.",
            plots.score_plot(cells.label, cells.score),
        ),
        Figure(
            "Predicted tumor purity of the pairs.",
            f"Histogram of the predicted purity of {int(np.isfinite(purity).sum())} pairs with cells.",
            plots.purity_histogram(purity),
        ),
    ]
    rows = [
        Row(
            [
                name,
                *(str(points.count(c)) for c in (CellClass.BACKGROUND, CellClass.TUMOR)),
                str(len(points)),
                number(value, 3),
            ],
            shown.get(i),
        )
        for i, (name, points, value) in enumerate(zip(names, predictions, purity, strict=True))
    ]
    table = Table(
        "Pair by pair", ["Pair", "BC", "TC", "Cells", "Tumor purity"], rows, sortable=True, full=True
    )
    return [Section("cells", "Cells", figures), Section("pairs-table", "All pairs", [table])]
