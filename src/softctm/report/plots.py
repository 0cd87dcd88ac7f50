"""The report's plots, as SVG that takes its text and grid colors from the page around it.

BC is drawn as in the challenge in yellow, outlined to be seen on white, TC in blue; marker and dash differ
too, so that no plot relies on color.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from itertools import count
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from softctm.evaluation.bootstrap import Estimate
from softctm.evaluation.calibration import Calibration
from softctm.evaluation.comparison import Comparison
from softctm.evaluation.confidence import Confidence
from softctm.evaluation.distance import DistanceErrors
from softctm.evaluation.scores import CLASSES

_INK, _GRID = "#1d1b26", "#e3e1ea"
_COLOR = {c.short: "#{:02x}{:02x}{:02x}".format(*c.color) for c in CLASSES}
_MARKER = {"BC": "o", "TC": "s"}
_DASH = {"BC": "-", "TC": "--"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "softctm",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": _GRID,
    "hatch.linewidth": 0.4,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.linewidth": 2,
}
_OUTLINE = [Stroke(linewidth=3.6, foreground=_INK), Normal()]
_serial = count()


def subgroup_plot(groups: Mapping[str, Mapping[str, Estimate]]) -> Markup:
    """F1 of BC and TC with 95 % intervals for each named group.

    Parameters
    ----------
    groups : mapping of str to mapping
        Name of the group to figures, of which `f1_bc` and `f1_tc` are drawn.
    """
    with matplotlib.rc_context(_STYLE):
        axes = _axes(6.4, 1.1 + 0.46 * len(groups))
        rows = np.arange(len(groups), dtype=float)
        for offset, short in ((-0.14, "BC"), (0.14, "TC")):
            estimates = [figures[f"f1_{short.lower()}"] for figures in groups.values()]
            value = np.array([estimate.value for estimate in estimates])
            low, high = (np.array([getattr(e, side) for e in estimates]) for side in ("low", "high"))
            axes.hlines(rows + offset, low, high, colors=_INK, linewidth=1.4)
            _dots(axes, value, rows + offset, short)
        axes.set_yticks(rows, list(groups))
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel("F1 with 95 % interval")
        axes.grid(axis="y", visible=False)
        _legend_above(axes)
        return _svg(axes.figure)


def confidence_plot(analysis: Confidence) -> Markup:
    """Precision, recall and F1 over the least confidence, one panel a class, the best F1 marked."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (short, curve) in zip(panels, analysis.curves.items(), strict=True):
            for name, band, dash in (
                ("precision", curve.precision, ":"),
                ("recall", curve.recall, "--"),
                ("F1", curve.f1, "-"),
            ):
                main = name == "F1"
                axes.fill_between(
                    curve.thresholds,
                    band.low,
                    band.high,
                    color=_COLOR[short],
                    alpha=0.3 if main else 0.12,
                    lw=0,
                )
                axes.plot(
                    curve.thresholds,
                    band.value,
                    dash,
                    color=_COLOR[short] if main else _INK,
                    linewidth=2.2 if main else 1.4,
                    path_effects=_OUTLINE if main else None,
                    label=name,
                )
            if np.isfinite(curve.best_threshold.value):
                best = curve.best_threshold.value, curve.at_best["f1"].value
                axes.plot(
                    *best, "D", color=_INK, markersize=6, clip_on=False, label=f"best F1, at {best[0]:.2f}"
                )
            axes.set(title=short, xlabel="confidence at least", xlim=(0, 1), ylim=(0, 1))
            _legend_above(axes, beside_title=True)
        return _svg(figure)


def calibration_plot(analysis: Mapping[str, Calibration]) -> Markup:
    """share of true positives over mean score in ten bins; the diagonal is a score that is a probability."""
    with matplotlib.rc_context(_STYLE):
        axes = _axes(4.8, 4.2)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=":", label="perfectly calibrated")
        for short in _COLOR:
            part = analysis[short]
            seen = part.predictions > 0
            score, rate = part.mean_score[seen], part.precision
            axes.vlines(score, rate.low[seen], rate.high[seen], colors=_INK, linewidth=1)
            axes.plot(score, rate.value[seen], _DASH[short], color=_INK, linewidth=1)
            _dots(axes, score, rate.value[seen], short)
        axes.set(
            xlabel="mean confidence",
            ylabel="share of true positives",
            xlim=(0, 1),
            ylim=(0, 1),
            aspect="equal",
        )
        _legend_above(axes)
        return _svg(axes.figure)


def purity_plot(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> Markup:
    """Predicted over true tumor purity, a dot a pair."""
    with matplotlib.rc_context(_STYLE):
        axes = _axes(4.8, 4.2)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=":")
        axes.scatter(true, predicted, s=26, color="#7a5cc4", edgecolors=_INK, linewidths=0.6, alpha=0.75)
        axes.set(xlabel="true purity", ylabel="predicted purity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_aspect("equal")
        return _svg(axes.figure)


def distance_plot(errors: Mapping[str, DistanceErrors]) -> Markup:
    """share of true positives by distance from the annotated point."""
    with matplotlib.rc_context(_STYLE):
        axes = _axes(6.0, 3.4)
        for short in _COLOR:
            part = errors[short]
            share = part.histogram / max(part.true_positives, 1)
            _bars(axes, share, np.arange(len(share) + 1), short)
        axes.set(
            xlabel="distance from the annotated point, px of 0.2 µm",
            ylabel="share of true positives",
            xlim=(0, None),
        )
        _legend_above(axes)
        return _svg(axes.figure)


def score_plot(label: NDArray[Any], score: NDArray[np.float32]) -> Markup:
    """Histogram of the predictions' confidence, by class."""
    with matplotlib.rc_context(_STYLE):
        axes = _axes(6.0, 3.4)
        for cell_class in CLASSES:
            number, edges = np.histogram(score[label == cell_class], 20, (0, 1))
            _bars(axes, number, edges, cell_class.short)
        axes.set(xlabel="confidence", ylabel="cells", xlim=(0, 1))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        _legend_above(axes)
        return _svg(axes.figure)


def purity_histogram(purity: NDArray[np.float64]) -> Markup:
    """Number of pairs by predicted tumor purity, without ground truth."""
    with matplotlib.rc_context(_STYLE):
        axes = _axes(6.0, 3.4)
        axes.hist(
            purity[np.isfinite(purity)], bins=20, range=(0, 1), color="#7a5cc4", edgecolor=_INK, linewidth=0.6
        )
        axes.set(xlabel="predicted tumor purity", ylabel="pairs", xlim=(0, 1))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(axes.figure)


def rank_plot(comparison: Comparison) -> Markup:
    """Share of resamples in which each set of predictions has each rank, stacked, best rank darkest."""
    with matplotlib.rc_context(_STYLE):
        names = comparison.names
        axes = _axes(7.2, 1.2 + 0.5 * len(names))
        rows, left = np.arange(len(names)), np.zeros(len(names))
        shades = matplotlib.colormaps["Purples"](np.linspace(0.9, 0.15, len(names)))
        for rank, shade in enumerate(shades):
            share = np.array([ranked.rank_distribution[rank] for ranked in comparison.ranking])
            axes.barh(
                rows, share, left=left, color=shade, edgecolor=_INK, linewidth=0.6, label=f"rank {rank + 1}"
            )
            left += share
        axes.set_yticks(rows, names)
        axes.invert_yaxis()
        axes.set(xlabel="share of resamples", xlim=(0, 1))
        axes.grid(axis="y", visible=False)
        _legend_above(axes)
        return _svg(axes.figure)


def _axes(width: float, height: float) -> Axes:
    return Figure(figsize=(width, height), layout="constrained").subplots()


def _legend_above(axes: Axes, *, beside_title: bool = False) -> None:
    """A legend outside the axes, where it covers no curve."""
    columns = min(len(axes.get_legend_handles_labels()[1]), 6)
    axes.legend(
        loc="lower right" if beside_title else "lower center",
        bbox_to_anchor=(1.0 if beside_title else 0.5, 1.0),
        ncols=columns,
        fontsize=8 if beside_title else 9,
        columnspacing=1.2,
    )


def _dots(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], short: str) -> None:
    axes.plot(
        x,
        y,
        _MARKER[short],
        color=_COLOR[short],
        markeredgecolor=_INK,
        markersize=7,
        markeredgewidth=1,
        clip_on=False,  # whole at 0 and 1 too
        zorder=3,
        label=short,
    )


def _bars(axes: Axes, height: NDArray[Any], edges: NDArray[Any], short: str) -> None:
    """One class's bars, BC in the left half of each bin and TC, hatched, in the right."""
    width = 0.45 * (edges[1] - edges[0])
    center = (edges[:-1] + edges[1:]) / 2 + (-width / 2 if short == "BC" else width / 2)
    axes.bar(
        center,
        height,
        width,
        color=_COLOR[short],
        edgecolor=_INK,
        linewidth=0.6,
        hatch=None if short == "BC" else "////",
        label=short,
    )


def _svg(figure: Any) -> Markup:
    """Turn a figure into an SVG element that may stand beside others in one page."""
    file = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # Its style sheet speaks to all elements (*), which would be the page's.
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    head, _, rest = text.partition(">")
    text = re.sub(r' (width|height)="[^"]*"', "", head) + ">" + rest
    prefix = f"plot{next(_serial)}-"
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    return Markup(text.replace(_INK, "currentColor").replace(_GRID, "var(--grid)"))
