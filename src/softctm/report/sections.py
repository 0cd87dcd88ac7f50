"""The page's tables and plots from an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from softctm.evaluation.bootstrap import Estimate
from softctm.evaluation.comparison import Comparison
from softctm.evaluation.confusion import OUTCOMES
from softctm.evaluation.result import Evaluation, PairResult
from softctm.evaluation.scores import CLASSES, precision_recall_f1
from softctm.evaluation.subgroups import Subgroup
from softctm.report import plots
from softctm.report.analyses import (
    comparison_section,
    confidence_section,
    figure_rows,
    positions_section,
    purity_section,
    tissue_section,
    with_interval,
)
from softctm.report.page import Figure, Highlight, Row, Section, Table
from softctm.report.viewer import number

_LONG = {"BC": "background cells", "TC": "tumor cells"}


def highlights_with_truth(result: Evaluation) -> list[Highlight]:
    """The figures at the top of a page with ground truth."""
    challenge, figures = result.challenge, result.figures
    cells = sum(len(pair.predicted) for pair in result.pairs)
    actual = sum(len(pair.truth.points) for pair in result.pairs)
    return [
        Highlight("Mean F1", number(challenge["mF1"]), _range(figures["mean_f1"])),
        *(
            Highlight(
                f"F1 of {_LONG[short]}",
                number(challenge[f"F1/{short}"]),
                _range(figures[f"f1_{short.lower()}"]),
            )
            for short in ("BC", "TC")
        ),
        Highlight(
            "Tumor purity, error",
            number(result.purity.figures["mean_absolute_error"].value, 3),
            f"mean per pair; correlation {number(result.purity.figures['correlation'].value, 3)}",
        ),
        Highlight("Cells predicted", f"{cells:,}", f"{actual:,} annotated, {len(result.pairs)} pairs"),
    ]


def sections_with_truth(
    result: Evaluation, names: Sequence[str], shown: Mapping[int, int], comparison: Comparison | None
) -> list[Section]:
    """All sections of a page with ground truth.

    Parameters
    ----------
    result : Evaluation
    names : sequence of str
        What to call each pair.
    shown : mapping of int to int
        Pair → its place in the viewer.
    comparison : Comparison, optional
        Of several predictions.
    """
    sections = [_scores(result)]
    if result.organs or result.regions:
        sections.append(_subgroups(result))
    sections += [confidence_section(result), positions_section(result)]
    if result.tissue:
        sections.append(tissue_section(result))
    sections.append(purity_section(result))
    if comparison is not None:
        sections.append(comparison_section(comparison))
    return [*sections, _pairs(result.pairs, names, shown)]


def _range(estimate: Estimate) -> str:
    if not np.isfinite([estimate.low, estimate.high]).all():
        return ""
    return f"95 %: {number(estimate.low, 3)} to {number(estimate.high, 3)}"


def _scores(result: Evaluation) -> Section:
    rows = []
    for cell_class, counts in zip(CLASSES, result.counts.tolist(), strict=True):
        short = cell_class.short
        figures = [result.figures[f"{name}_{short.lower()}"] for name in ("precision", "recall", "f1")]
        rows.append(
            Row([f"{short}, {_LONG[short]}", *map(with_interval, figures), *(f"{n:,}" for n in counts)])
        )
    rows.append(
        Row(
            [
                "Mean of both",
                "",
                "",
                with_interval(result.figures["mean_f1"]),
                *(f"{n:,}" for n in result.counts.sum(axis=0)),
            ]
        )
    )
    by_class = Table(
        "By class",
        ["Class", "Precision", "Recall", "F1", "TP", "FP", "FN"],
        rows,
        note=f"In brackets: 95 % interval, {result.resamples:,} resamples of the {result.truth.unit}."
        if result.resamples
        else "",
        full=True,
    )
    found = result.confusion
    outcome = [*OUTCOMES[:2], "no cell"]
    confusion = Table(
        "Confusion matrix",
        ["Annotated", *(f"predicted {name}" for name in OUTCOMES[:2]), "not found"],
        [
            Row([name, *("" if i == j == 2 else f"{n:,}" for j, n in enumerate(row))])
            for i, (name, row) in enumerate(zip(outcome, found.matrix.tolist(), strict=True))
        ],
        note="Matched regardless of class.",
    )
    labels = {
        "detection_precision": "Precision",
        "detection_recall": "Recall",
        "detection_f1": "F1",
        "class_accuracy": "Right class among found cells",
        "kappa": "Cohen's kappa of the class",
        "bc_called_tc": "BC called TC",
        "tc_called_bc": "TC called BC",
    }
    detection = Table(
        "Detection, regardless of class", ["Figure", "Value"], figure_rows(labels, found.figures)
    )
    return Section(
        "scores",
        "Scores",
        [by_class, detection, confusion],
        "A prediction is a true positive (TP) if an annotated cell of its class, not yet matched, lies "
        "within 15 px (3 µm); predictions are matched by falling confidence. Other predictions are false "
        "positives (FP), other annotated cells false negatives (FN). Counts are pooled over all pairs.",
    )


def _subgroups(result: Evaluation) -> Section:
    kinds = [("By organ", "Organ", result.organs), ("By annotated tissue", "Tissue", result.regions)]
    kinds = [kind for kind in kinds if kind[2]]
    figures = [
        Figure(
            f"F1 {caption.lower()}, with 95 % intervals.",
            f"F1 {caption.lower()}: "
            + "; ".join(
                f"{group.name} BC {number(group.figures['f1_bc'].value, 2)}, "
                f"TC {number(group.figures['f1_tc'].value, 2)}"
                for group in groups
            ),
            plots.subgroup_plot({group.name: group.figures for group in groups}),
        )
        for caption, _, groups in kinds
    ]
    blocks: list[Table | Figure] = [*figures, *(_subgroup_table(*kind) for kind in kinds)]
    return Section(
        "subgroups",
        "Subgroups",
        blocks,
        "Cells of unknown tissue are left out of the table by tissue." if result.regions else "",
    )


def _subgroup_table(caption: str, what: str, groups: Sequence[Subgroup]) -> Table:
    rows = [
        Row(
            [
                group.name,
                str(group.pairs),
                *(f"{group.true[short]:,}" for short in ("BC", "TC")),
                *(with_interval(group.figures[name], 2) for name in ("f1_bc", "f1_tc", "mean_f1")),
            ]
        )
        for group in groups
    ]
    columns = [what, "Pairs", "True BC", "True TC", "F1 BC", "F1 TC", "Mean F1"]
    return Table(caption, columns, rows, sortable=len(rows) > 2, full=True)


def _pairs(pairs: Sequence[PairResult], names: Sequence[str], shown: Mapping[int, int]) -> Section:
    rows = [
        Row(
            [
                names[pair.index],
                pair.truth.organ or "–",
                *(str(points.count(c)) for c in CLASSES for points in (pair.truth.points, pair.predicted)),
                *(number(pair.scores[name], 3) for name in ("f1_bc", "f1_tc")),
                number(float(precision_recall_f1(pair.counts.sum(axis=0), undefined=np.nan)[2]), 3),
                number(pair.true_purity, 3),
                number(pair.predicted_purity, 3),
            ],
            shown.get(pair.index),
        )
        for pair in pairs
    ]
    columns = ["Pair", "Organ", "True BC", "Pred. BC", "True TC", "Pred. TC", "F1 BC", "F1 TC", "F1 of all"]
    columns += ["True purity", "Pred. purity"]
    return Section(
        "pairs-table", "All pairs", [Table("Pair by pair", columns, rows, sortable=True, full=True)]
    )
