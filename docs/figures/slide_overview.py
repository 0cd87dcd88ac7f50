"""The picture of a slide for the docs: pair 349 of examples/ocelot as a slide, as `softctm slides` shows it.

python -m docs.figures.slide_overview       # writes docs/images/slide-overview.jpg
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.slides.material import pair_as_slide, write_slide
from softctm.cli import main as softctm
from softctm.pair import CELL_MPP
from softctm.readers import open_pairs

ROOT = Path(__file__).resolve().parents[2]
NAME = "pair 349 as a slide"


def main() -> int:
    """Make the slide, find its cells, keep the overview."""
    source = open_pairs(ROOT / "examples/ocelot", "train")
    pair = source.read(source.names.index("349"))
    with tempfile.TemporaryDirectory() as scratch:
        image = pair_as_slide(pair.tissue, pair.cell, pair.window.x, pair.window.y)
        slide = write_slide(Path(scratch) / f"{NAME}.tif", image, CELL_MPP)
        code = softctm(["slides", str(slide), "--output", f"{scratch}/out", "--quality", "balanced"])
        if code == 0:
            overview = Image.open(Path(scratch) / "out" / NAME / "overview.png").convert("RGB")
            overview.save(ROOT / "docs/images/slide-overview.jpg", quality=88, optimize=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
