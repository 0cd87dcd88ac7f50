"""Repeat the pairs of an input folder into one stacked TIFF a stream, the challenge's own form.

python stack.py INPUT NUMBER OUTPUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

SIDE = 1024


def main(source: Path, number: int, target: Path) -> None:
    for stream in ("cell_patches", "tissue_patches"):
        patches = [np.asarray(Image.open(path)) for path in sorted((source / "images" / stream).iterdir())]
        folder = target / "images" / stream
        folder.mkdir(parents=True)
        stack = tifffile.memmap(
            folder / "stack.tif", shape=(number * SIDE, SIDE, 3), dtype=np.uint8, photometric="rgb"
        )
        for index in range(number):
            stack[index * SIDE : (index + 1) * SIDE] = patches[index % len(patches)]
        stack.flush()
    metadata = json.loads((source / "metadata.json").read_text())
    entries = list(metadata["sample_pairs"].values()) if isinstance(metadata, dict) else metadata
    repeated = [entries[index % len(entries)] for index in range(number)]
    (target / "metadata.json").write_text(json.dumps(repeated))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
