"""An evaluation and a comparison as lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from softctm.evaluation.bootstrap import Estimate
from softctm.evaluation.comparison import Comparison
from softctm.evaluation.result import Evaluation
from softctm.progress import counted


def summary(evaluation: Evaluation) -> Iterator[str]:
    """The evaluation for a terminal: the challenge's numbers first, then where cells are lost."""
    predicted = sum(len(pair.predicted) for pair in evaluation.pairs)
    true = sum(len(pair.truth.points) for pair in evaluation.pairs)
    truth = evaluation.truth
    of = f" of {counted(len(set(truth.units)), 'patient')}" if truth.unit == "patients" else ""
    pairs = counted(len(truth), "pair")
    yield f"{evaluation.name}: {pairs}{of}, {counted(true, 'true cell')}, {predicted} predicted"
    for (name, value), figure in zip(evaluation.challenge.items(), evaluation.figures.values(), strict=True):
        yield f"{name:<7} {challenge_number(value)}{_range(figure)}"
    where = {
        "finding cells of any class: F1": evaluation.confusion.figures["detection_f1"],
        "classifying those found: accuracy": evaluation.confusion.figures["class_accuracy"],
        "tumor purity of a pair: mean error": evaluation.purity.figures["mean_absolute_error"],
        "expected calibration error": evaluation.calibration["all"].figures["expected_calibration_error"],
    }
    yield from _lines("", where)
    yield from _lines(
        "mean F1 by organ", {group.name: group.figures["mean_f1"] for group in evaluation.organs}
    )
    regions = {
        f"{group.name}, {short.upper()}": group.figures[f"f1_{short}"]
        for group in evaluation.regions
        for short in ("bc", "tc")
    }
    yield from _lines("F1 by tissue region", regions)
    yield from _lines(
        "tissue pixels, mean F1", {part.name: part.figures["mean_f1"] for part in evaluation.tissue}
    )


def challenge_number(value: float) -> str:
    """A challenge score in full: four decimals, or the fifth that a mean of two of them can have."""
    return f"{value:.5f}".removesuffix("0")


def ranking(comparison: Comparison) -> Iterator[str]:
    """The comparison for a terminal."""
    yield "ranking by mean F1 (share of resamples at rank 1, 2, …)"
    for ranked in sorted(comparison.ranking, key=lambda ranked: ranked.rank):
        shares = " ".join(f"{share:.3f}" for share in ranked.rank_distribution)
        yield f"  {ranked.rank}  {ranked.name}  {ranked.mean_f1.value:.4f}  {shares}"
    for two in comparison.pairwise:
        yield (
            f"  {two.first} outranks {two.second} with probability {two.probability:.4f}, "
            f"difference {two.difference.value:+.4f}{_range(two.difference)}"
        )


def _lines(title: str, figures: Mapping[str, Estimate]) -> Iterator[str]:
    """Named figures under a title; nothing where there are none."""
    if title and figures:
        yield title
    width = max(map(len, figures), default=0)
    for name, figure in figures.items():
        value = "undefined" if math.isnan(figure.value) else f"{figure.value:.4f}"
        yield f"  {name:<{width}} {value}{_range(figure)}"


def _range(figure: Estimate) -> str:
    """The interval, where there is one."""
    return "" if math.isnan(figure.low) else f"  95 %: {figure.low:.4f} … {figure.high:.4f}"
