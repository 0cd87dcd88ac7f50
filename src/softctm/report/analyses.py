"""The page's closer looks: confidence, positions, tissue, purity, and a comparison of predictions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from softctm.evaluation.bootstrap import Estimate
from softctm.evaluation.comparison import Comparison
from softctm.evaluation.result import Evaluation
from softctm.evaluation.tissue import SCORED_TISSUE
from softctm.report import plots
from softctm.report.page import Figure, Row, Section, Table
from softctm.report.viewer import number


def with_interval(estimate: Estimate, digits: int = 3) -> str:
    """A figure with its 95 % interval, such as `0.712 (0.690–0.733)`; a dash where it is not defined."""
    value = number(estimate.value, digits)
    if not np.isfinite([estimate.low, estimate.high]).all():
        return value
    low, high = number(estimate.low, digits), number(estimate.high, digits)
    between = "\xa0to\xa0" if "−" in low else "–"  # a dash beside a minus would be hard to read
    return f"{value} ({low}{between}{high})"


def figure_rows(labels: Mapping[str, str], figures: Mapping[str, Estimate], digits: int = 3) -> list[Row]:
    """One row a figure, those that exist, in the order of the labels."""
    return [
        Row([label, with_interval(figures[name], digits)])
        for name, label in labels.items()
        if name in figures
    ]


def confidence_section(result: Evaluation) -> Section:
    """Scores over confidence, the best thresholds, and whether confidences are probabilities."""
    analysis = result.confidence
    best = Table(
        "The confidence with the best F1",
        ["Class", "Best threshold", "Precision", "Recall", "F1", "F1 of all"],
        [
            Row(
                [
                    short,
                    with_interval(curve.best_threshold, 2),
                    *(with_interval(curve.at_best[name]) for name in ("precision", "recall", "f1")),
                    with_interval(result.figures[f"f1_{short.lower()}"]),
                ]
            )
            for short, curve in analysis.curves.items()
        ],
        note=f"Mean F1 with each class at its best: {with_interval(analysis.mean_f1_at_best)}. Chosen on the "
        "same cells, so a little too good.",
        full=True,
    )
    labels = {
        "expected_calibration_error": "Calibration error",
        "overconfidence": "Overconfidence",
        "brier": "Brier score",
    }
    parts = ("all", "BC", "TC")
    calibration = Table(
        "Calibration: is confidence a probability?",
        ["Figure", *("both" if part == "all" else part for part in parts)],
        [
            Row([label, *(with_interval(result.calibration[part].figures[name]) for part in parts)])
            for name, label in labels.items()
        ],
        note="Calibration error: mean distance of confidence and share of TP over ten bins. "
        "Overconfidence: mean confidence − share of TP.",
    )
    return Section(
        "confidence",
        "Confidence",
        [
            Figure(
                "Precision, recall and F1 with only the predictions that reach a confidence; bands: 95 %.",
                "Precision, recall and F1 of BC and TC over the confidence; the best F1s are in the table.",
                plots.confidence_plot(analysis),
                full=True,
            ),
            best,
            Figure(
                "Share of true positives among predictions of one confidence. On the dotted line, confidence "
                "is the probability of a true positive.",
                "Share of true positives over confidence in ten bins; the errors are in the table beside it.",
                plots.calibration_plot(result.calibration),
            ),
            calibration,
        ],
    )


def positions_section(result: Evaluation) -> Section:
    """How far true positives lie from the annotated points."""
    labels = {
        "mean": "Mean",
        "median": "Median",
        "percentile_90": "90 % lie within",
        "rms": "Root mean square",
        "bias_x": "Bias to the right",
        "bias_y": "Bias downwards",
    }
    parts = ("all", "BC", "TC")
    table = Table(
        "Distance of true positives from the annotated point, px",
        ["Figure", *("both" if part == "all" else part for part in parts)],
        [
            Row([label, *(with_interval(result.distances[part].figures[name], 2) for part in parts)])
            for name, label in labels.items()
        ],
        note="1 px is 0.2 µm.",
    )
    figure = Figure(
        "How far true positives lie from the annotated point.",
        "Histogram of the distance of true positives, up to 15 px; its figures are in the table beside it.",
        plots.distance_plot(result.distances),
    )
    return Section("positions", "Positions", [figure, table])


def tissue_section(result: Evaluation) -> Section:
    """Predicted tissue maps against the annotated ones."""
    names = [f"{kind}_{name}" for name in SCORED_TISSUE for kind in ("f1", "iou")]
    columns = ["Pairs of", "Pairs", *(f"{kind} {name}" for name in SCORED_TISSUE for kind in ("F1", "IoU"))]
    rows = [
        Row(
            [
                part.name,
                str(part.pairs),
                *(with_interval(part.figures[name]) for name in [*names, "mean_f1", "accuracy"]),
            ]
        )
        for part in result.tissue
    ]
    table = Table("By organ", [*columns, "Mean F1", "Accuracy"], rows, sortable=True, full=True)
    return Section("tissue", "Tissue", [table], "Pixels of the tissue patch; annotated unknown is ignored.")


def purity_section(result: Evaluation) -> Section:
    """Predicted against true tumor purity."""
    labels = {
        "mean_absolute_error": "Mean absolute error",
        "bias": "Bias (predicted − true)",
        "rms_error": "Root mean square error",
        "correlation": "Correlation (Pearson)",
        "concordance": "Concordance (Lin)",
    }
    return Section(
        "purity",
        "Tumor purity",
        [
            Figure(
                "A dot a pair; on the dotted line prediction and annotation agree.",
                f"Predicted over true purity of {result.purity.pairs} pairs; the errors are in the table.",
                plots.purity_plot(result.purity.predicted, result.purity.true),
            ),
            Table(
                f"Over {result.purity.pairs} pairs with cells in both",
                ["Figure", "Value"],
                figure_rows(labels, result.purity.figures),
            ),
        ],
        "TC / (TC + BC), a pair.",
    )


def comparison_section(comparison: Comparison) -> Section:
    """Several predictions ranked."""
    ranking = Table(
        "Ranking by mean F1",
        ["Predictions", "Rank", "Mean F1", "Mean rank"],
        [
            Row([ranked.name, str(ranked.rank), with_interval(ranked.mean_f1), number(ranked.mean_rank, 2)])
            for ranked in comparison.ranking
        ],
        sortable=len(comparison.ranking) > 2,
    )
    pairwise = Table(
        "Pairwise comparison",
        ["First", "Second", "Difference of mean F1", "First is better in"],
        [
            Row([two.first, two.second, with_interval(two.difference), f"{100 * two.probability:.1f} %"])
            for two in comparison.pairwise
        ],
        note="Share of bootstrap resamples, each drawing the same patients for all.",
        full=True,
    )
    figure = Figure(
        "How often each has which rank among the resamples.",
        "Rank distribution; mean ranks are in the table beside it.",
        plots.rank_plot(comparison),
    )
    return Section("comparison", "Comparison", [figure, ranking, pairwise])
