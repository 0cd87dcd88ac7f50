"""Draw docs/images/learning-curves.png from the metrics of a run, or of rounds that follow each other.

python docs/figures/learning_curves.py RUN [RUN …]
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

OUTPUT = Path(__file__).resolve().parents[1] / "images" / "learning-curves.png"
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
TASKS = {"tissue": "tissue, F1 over pixels", "cells": "cells, F1 (one view, one fixed rule)"}


def main() -> None:
    """Read every fold's metrics.csv and draw."""
    runs = [Path(argument) for argument in sys.argv[1:]]
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6), sharex="col", layout="constrained")
    for column, (task, title) in enumerate(TASKS.items()):
        draw(axes[0, column], runs, task, "loss", "-")
        draw(axes[1, column], runs, task, "validation_mean_f1", "o-")
        axes[0, column].set(title=title, ylabel="training loss")
        axes[1, column].set(xlabel="epoch", ylabel="mean F1 on the fold kept out")
    axes[0, 0].legend(fontsize="small", ncols=2)
    figure.savefig(OUTPUT, dpi=110)
    print(OUTPUT)


def draw(axes: Axes, runs: list[Path], task: str, name: str, style: str) -> None:
    """One line a fold; a dotted line where a round begins."""
    for fold, path in enumerate(sorted((runs[0] / task).glob("fold*"))):
        epochs, values, before = [], [], 0
        for run in runs:
            with (run / task / path.name / "metrics.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            shown = [row for row in rows if row.get(name)]
            epochs += [before + int(row["epoch"]) for row in shown]
            values += [float(row[name]) for row in shown]
            before += int(rows[-1]["epoch"])
            if fold == 0 and run is not runs[-1]:
                axes.axvline(before, color="gray", linestyle=":")
        axes.plot(
            epochs,
            values,
            style,
            markersize=3,
            color=COLORS[fold % len(COLORS)],
            label=path.name.replace("fold", "fold "),
        )
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
