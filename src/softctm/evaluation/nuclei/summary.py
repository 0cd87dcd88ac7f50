"""An evaluation of nuclei as lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from softctm.evaluation.bootstrap import Estimate
from softctm.evaluation.nuclei.detection import RADIUS_PX
from softctm.evaluation.nuclei.scores import NucleiEvaluation
from softctm.progress import counted

_SHAPES = {"bpq": "bPQ", "dq": "DQ", "sq": "SQ", "mpq": "mPQ", "aji": "AJI", "dice": "Dice"}


def summary(evaluation: NucleiEvaluation) -> Iterator[str]:
    """The evaluation for a terminal."""
    overall, figures = evaluation.overall, evaluation.overall.figures
    true = counted(overall.true, "true nucleus", "true nuclei")
    counts = f"{counted(overall.images, 'image')}, {true}, {overall.predicted} predicted"
    yield f"{evaluation.name}: {counts}"
    yield "shapes, mean over images (pooled)"
    for name, label in _SHAPES.items():
        if name != "mpq" or evaluation.by_type:
            pooled = _number(figures[f"pooled_{name}"].value)
            yield f"  {label:<9} {_estimate(figures[name])}  ({pooled})"
    yield f"detection, centers within {RADIUS_PX[evaluation.magnification]} px"
    for name in ("precision", "recall", "f1"):
        yield f"  {name:<9} {_estimate(figures[f'detection_{name}'])}"
    if evaluation.by_type:
        yield "by type: nuclei, F1, PQ"
        width = max(len(group.name) for group in evaluation.by_type)
        for group in evaluation.by_type:
            f1, pq = _estimate(group.figures["f1"]), _number(group.figures["pq"].value)
            yield f"  {group.name:<{width}} {group.true:>7}  {f1}  {pq}"
    if evaluation.organs:
        yield "by organ: images, bPQ, mPQ, detection F1"
        width = max(len(group.name) for group in evaluation.organs)
        for group in evaluation.organs:
            parts = [_number(group.figures[name].value) for name in ("bpq", "mpq", "detection_f1")]
            yield f"  {group.name:<{width}} {group.images:>5}  {'  '.join(parts)}"
        yield from _over_organs(evaluation.over_organs)


def _over_organs(figures: Mapping[str, Estimate]) -> Iterator[str]:
    for name, label in (("bpq", "bPQ"), ("mpq", "mPQ")):
        if not math.isnan(figures[name].value):
            yield f"  mean of organs, {label}: {_estimate(figures[name])}"


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def _estimate(figure: Estimate) -> str:
    """The value, and its interval where there is one."""
    interval = "" if math.isnan(figure.low) else f"  95 %: {figure.low:.4f} … {figure.high:.4f}"
    return _number(figure.value) + interval
