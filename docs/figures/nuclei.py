"""Draw docs/images/nuclei.jpg: the nuclei that a model outlines in real patches, in their types' colors.

python docs/figures/nuclei.py [--weights MODEL] [--data OCELOT --pair ID …] [--output FILE]
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from shown_pairs import ROOT, add_pairs, chosen_pairs, save

from softctm import load_detector
from softctm.inference.nuclei_image import find_nuclei, nucleus_types
from softctm.pair import CELL_MPP

SIDE = 640
"""Side of the part that is shown, pixels: the middle of the patch."""


def main() -> None:
    """Draw a patch beside the other, with a legend of the types that occur."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--weights", type=Path, default=ROOT / "model_weights/nuclei")
    add_pairs(parser, "nuclei.jpg")
    args = parser.parse_args()
    chosen = chosen_pairs(args)
    detector = load_detector(args.weights, device="cpu")
    types, seen = nucleus_types(detector.model), Counter[int]()
    figure, axes = plt.subplots(
        1, len(chosen), figsize=(5 * len(chosen), 5.3), constrained_layout=True, squeeze=False
    )
    for axis, pair in zip(axes[0], chosen, strict=True):
        image = pair.cell_patch()
        found = find_nuclei(detector, image, mpp=CELL_MPP)
        nuclei = found.nuclei
        rings = [nuclei.outlines[i] * found.scale for i in range(len(nuclei))]
        colors = [[part / 255 for part in types[kind].color] for kind in nuclei.table.type.tolist()]
        axis.imshow(image, extent=(0, image.shape[1], image.shape[0], 0))
        axis.add_collection(PolyCollection(rings, edgecolors=colors, facecolors="none", linewidths=1.4))
        start = (image.shape[0] - SIDE) // 2
        axis.set(xlim=(start, start + SIDE), ylim=(start + SIDE, start))
        axis.set_axis_off()
        seen.update(nuclei.table.type.tolist())
    lines = [
        Line2D([], [], color=[part / 255 for part in types[kind].color], label=_words(types[kind].name, kind))
        for kind in sorted(seen, key=lambda kind: -seen[kind])
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    save(figure, args.output)


def _words(name: str, kind: int) -> str:
    return name.replace("_", " ") if kind else "no type seen"


if __name__ == "__main__":
    main()
