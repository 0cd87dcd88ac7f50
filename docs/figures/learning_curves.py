"""Draw docs/images/learning-curves.png from the metrics of a run.

python docs/figures/learning_curves.py RUN
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OUTPUT = Path(__file__).resolve().parents[1] / "images" / "learning-curves.png"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")


def main() -> None:
    """Loss above, validation F1 below, tissue left, cells right, one line a fold."""
    run = Path(sys.argv[1])
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), sharex="col", constrained_layout=True)
    for column, (task, title) in enumerate((("tissue", "tissue networks"), ("cells", "cell networks"))):
        loss_axis, score_axis = axes[:, column]
        for path in sorted((run / task).glob("fold*/metrics.csv")):
            rows = list(csv.DictReader(path.open()))
            fold = path.parent.name.removeprefix("fold")
            colour = COLOURS[int(fold) % len(COLOURS)]
            epochs = [int(row["epoch"]) for row in rows]
            loss_axis.plot(epochs, [float(row["loss"]) for row in rows], color=colour, label=f"fold {fold}")
            scored = [row for row in rows if row.get("validation_mean_f1")]
            score_axis.plot(
                [int(row["epoch"]) for row in scored],
                [float(row["validation_mean_f1"]) for row in scored],
                color=colour,
                marker="o",
            )
        loss_axis.set(title=title, ylabel="training loss")
        score_axis.set(xlabel="epoch", ylabel="mean F1 on the fold")
        for axis in (loss_axis, score_axis):
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
        loss_axis.legend(frameon=False, fontsize=8)
    OUTPUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUTPUT, dpi=110)
    print(OUTPUT)


if __name__ == "__main__":
    main()
