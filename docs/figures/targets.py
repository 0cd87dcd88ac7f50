"""Draw docs/images/targets.png: one synthetic image, its nucleus masks, and the targets made of them.

python docs/figures/targets.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from softctm.pair import CELL_MPP
from softctm.phantom import draw_pair
from softctm.points import CellClass
from softctm.training.segmenters import ClassicalSegmenter
from softctm.training.targets import circle_target, hard_target, soft_target

OUTPUT = Path(__file__).resolve().parents[1] / "images" / "targets.png"
SEED = 7
SIDE = 200
"""Side of the part that is shown, pixels."""

BAR_UM = 10
COLORS = {cell_class: np.array(cell_class.color) / 255 for cell_class in CellClass}


def main() -> None:
    """Draw the six panels."""
    pair, truth = draw_pair(SEED)
    points = truth.cells
    nuclei = ClassicalSegmenter()(pair.cell, points)
    shape = pair.cell.shape[:2]
    targets = {
        "circle, 1.4 µm": circle_target((shape[0], shape[1]), points),
        "hard": hard_target(nuclei, points),
        "soft, σ = 2 µm": soft_target(nuclei, points, 2.0),
        "soft, σ = 3 µm": soft_target(nuclei, points, 3.0),
    }
    # Where both classes are, and as many cells as possible.
    top, left = max(
        ((y, x) for y in range(0, shape[0] - SIDE, 40) for x in range(0, shape[1] - SIDE, 40)),
        key=lambda corner: min(
            _inside(points.x, points.y, points.label == kind, corner) for kind in CellClass
        ),
    )
    view = (slice(top, top + SIDE), slice(left, left + SIDE))
    figure, axes = plt.subplots(2, 3, figsize=(9, 6.5), constrained_layout=True)
    panels = axes.flat
    shown = pair.cell[view]
    _show(next(panels), shown / 255, "patch and annotated points")
    inside = (points.x >= left) & (points.x < left + SIDE) & (points.y >= top) & (points.y < top + SIDE)
    for cell_class, marker in ((CellClass.BACKGROUND, "s"), (CellClass.TUMOR, "o")):
        chosen = inside & (points.label == cell_class)
        axes[0, 0].scatter(
            points.x[chosen] - left, points.y[chosen] - top, s=30, marker=marker,
            color=COLORS[cell_class], edgecolors="white", linewidths=0.9,
        )  # fmt: skip
    outlined = shown / 255
    outlined[find_boundaries(nuclei[view], mode="inner")] = (0.2, 1.0, 0.4)
    _show(next(panels), outlined, "nucleus masks")
    for title, target in targets.items():
        _show(next(panels), _painted(target[(slice(None), *view)]), title)
    bar = BAR_UM / CELL_MPP
    end = SIDE - 10
    axes[0, 0].plot([end - bar, end], [end] * 2, color="black", linewidth=3, solid_capstyle="butt")
    axes[0, 0].text(end - bar / 2, end - 4, f"{BAR_UM} µm", ha="center", va="bottom", fontsize=9)
    figure.legend(
        handles=[
            Line2D([], [], marker=marker, color=COLORS[kind], linestyle="", markersize=8, label=label)
            for kind, marker, label in (
                (CellClass.BACKGROUND, "s", "background cell"),
                (CellClass.TUMOR, "o", "tumor cell"),
            )
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    OUTPUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUTPUT, dpi=110)
    print(OUTPUT)


def _inside(
    x: NDArray[np.int32], y: NDArray[np.int32], chosen: NDArray[np.bool_], corner: tuple[int, int]
) -> int:
    top, left = corner
    return int(np.sum(chosen & (x >= left) & (x < left + SIDE) & (y >= top) & (y < top + SIDE)))


def _painted(target: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shares of the classes as colors on black."""
    planes = zip(target[1:, ..., None], COLORS.values(), strict=True)
    return np.clip(sum((plane * color for plane, color in planes), np.zeros(3)), 0, 1)


def _show(axis: Axes, image: NDArray[np.floating], title: str) -> None:
    axis.imshow(image, interpolation="nearest")
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()


if __name__ == "__main__":
    main()
