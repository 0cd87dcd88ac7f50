"""Draw docs/images/segmenters.jpg: nuclei of real patches, outlined from their points by both segmenters.

python docs/figures/segmenters.py [--segmenter points|FILE] [--data OCELOT --pair ID …] [--output FILE]
"""

from __future__ import annotations

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from shown_pairs import add_pairs, chosen_pairs, save
from skimage.segmentation import find_boundaries

from softctm.pair import CELL_MPP
from softctm.points import CellClass, CellPoints
from softctm.training.segmenters import NucleusSegmenter, open_segmenter

SIDE = 300
"""Side of the part that is shown, pixels."""

BAR_UM = 10
OUTLINE = (0, 255, 70)


def main() -> None:
    """Draw a row a patch: the classical segmenter, the one that is guided by the points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--segmenter", default="points", help="the guided one (default: points)")
    add_pairs(parser, "segmenters.jpg")
    args = parser.parse_args()
    chosen = chosen_pairs(args)
    ways = {"classical": open_segmenter("classical"), "points": open_segmenter(args.segmenter)}
    figure, axes = plt.subplots(
        len(chosen), 2, figsize=(7, 3.6 * len(chosen)), constrained_layout=True, squeeze=False
    )
    for row, pair in zip(axes, chosen, strict=True):
        image, points = pair.cell_patch(), pair.cells()
        corner = busiest(points, image.shape[0])
        for axis, (name, segment) in zip(row, ways.items(), strict=True):
            axis.imshow(outlined(image, points, segment, corner), interpolation="nearest")
            axis.set_title(f"pair {pair.id}, {name}", fontsize=10)
            axis.set_axis_off()
        bar = BAR_UM / CELL_MPP
        row[0].plot([SIDE - 10 - bar, SIDE - 10], [SIDE - 10] * 2, color="black", linewidth=3)
    save(figure, args.output)


def busiest(points: CellPoints, size: int) -> tuple[int, int]:
    """Top and left of the part with most points."""
    corners = [(y, x) for y in range(0, size - SIDE, 40) for x in range(0, size - SIDE, 40)]
    return max(corners, key=lambda corner: int(inside(points, corner).sum()))


def inside(points: CellPoints, corner: tuple[int, int]) -> NDArray[np.bool_]:
    """Which points the part holds."""
    y, x = points.y - corner[0], points.x - corner[1]
    return (y >= 0) & (y < SIDE) & (x >= 0) & (x < SIDE)


def outlined(
    image: NDArray[np.uint8], points: CellPoints, segment: NucleusSegmenter, corner: tuple[int, int]
) -> NDArray[np.uint8]:
    """The part with outlines and points; the whole patch is segmented, as training does."""
    labels = segment(image, points)
    shown = image.copy()
    shown[find_boundaries(labels, mode="inner")] = OUTLINE
    for kind in CellClass:
        for y, x in zip(points.y[points.label == kind], points.x[points.label == kind], strict=True):
            shown[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = kind.color
    return shown[corner[0] : corner[0] + SIDE, corner[1] : corner[1] + SIDE]


if __name__ == "__main__":
    main()
