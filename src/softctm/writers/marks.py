"""Cells drawn onto an image: tumor cells as blue circles, background cells as yellow squares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from softctm.points import CellClass, CellPoints

RADIUS = 9
"""Half the side of a mark, pixels of the cell patch: about a nucleus."""

_SUPERSAMPLING = 3


def mark_cells(image: NDArray[np.uint8], cells: CellPoints) -> Image.Image:
    """Draw the cells onto their patch.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB; the cells' coordinates are its pixels.
    cells : CellPoints

    Returns
    -------
    Image
        RGB of the same size; the input stays as it is.
    """
    # Drawn larger and scaled down: Pillow's shapes have no smooth edges of their own.
    scale = _SUPERSAMPLING
    marks = Image.new("RGBA", (image.shape[1] * scale, image.shape[0] * scale))
    draw = ImageDraw.Draw(marks)
    for x, y, label in zip(cells.x, cells.y, cells.label, strict=True):
        draw_mark(draw, CellClass(label), ((x + 0.5) * scale, (y + 0.5) * scale), scale)
    picture = Image.fromarray(image).convert("RGBA")
    picture.alpha_composite(marks.reduce(scale))
    return picture.convert("RGB")


def draw_mark(
    draw: ImageDraw.ImageDraw, cell_class: CellClass, center: Sequence[float], scale: float
) -> None:
    """Draw one mark; `scale` is its size in multiples of `RADIUS`, `center` in the drawing's pixels."""
    shape = draw.ellipse if cell_class is CellClass.TUMOR else draw.rectangle
    x, y = center
    # A rim keeps the mark visible on any tissue: light around the dark blue, dark around the light yellow.
    rim = (255, 255, 255) if cell_class is CellClass.TUMOR else (0, 0, 0)
    for grow, color, width in ((1, rim, 5), (0, cell_class.color, 3)):
        reach = (RADIUS + grow) * scale
        shape((x - reach, y - reach, x + reach, y + reach), outline=color, width=round(width * scale))
