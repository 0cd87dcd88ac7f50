"""A pair on one picture: its cells on the cell patch, its cancer area and the frame on the tissue patch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from softctm.datasets.ocelot import TISSUE_CANCER, tissue_labels_of
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP, WINDOW_SIZE, CellTissuePair
from softctm.points import CellClass
from softctm.writers.marks import draw_mark, mark_cells

if TYPE_CHECKING:
    from softctm.inference.detector import Prediction

_MARGIN, _GAP, _HEAD, _FOOT = 24, 32, 64, 76
_INK, _SOFT, _PAPER = (29, 27, 38), (91, 87, 107), (255, 255, 255)
_CANCER = (0, 128, 96)
_TINT = 0.3
_BAR = 250
"""Length of the scale bars, pixels: 50 µm on the cell patch, 200 µm on the tissue patch."""


def overview(pair: CellTissuePair, prediction: Prediction) -> Image.Image:
    """Draw a pair and what was found in it.

    Parameters
    ----------
    pair : CellTissuePair
    prediction : Prediction
        Without a tissue map, no cancer area is drawn.

    Returns
    -------
    Image
        RGB, 2128 × 1164: left the cell patch, right the tissue patch, both at full size, a legend below.
    """
    cancer = None
    if prediction.tissue_probability is not None:
        cancer = tissue_labels_of(prediction.tissue_probability) == TISSUE_CANCER
    picture = Image.new("RGB", (2 * (_MARGIN + PATCH_SIZE) + _GAP, _HEAD + PATCH_SIZE + _FOOT), _PAPER)
    left, right = _MARGIN, _MARGIN + PATCH_SIZE + _GAP
    picture.paste(mark_cells(pair.cell, prediction.points), (left, _HEAD))
    picture.paste(_tissue(pair, cancer), (right, _HEAD))
    draw = ImageDraw.Draw(picture)
    for start, title, mpp in ((left, f"Cells of pair {pair.name}", CELL_MPP), (right, "Tissue", TISSUE_MPP)):
        draw.text((start, _HEAD / 2), _shortened(title), _INK, _font(34), anchor="lm")
        _scale_bar(draw, start + PATCH_SIZE, round(_BAR * mpp))
    y = _HEAD + PATCH_SIZE + _FOOT / 2
    x: float = left
    for cell_class in (CellClass.TUMOR, CellClass.BACKGROUND):
        draw_mark(draw, cell_class, (x + 16, y), 1.5)
        text = f"{prediction.points.count(cell_class):,} {cell_class.name.lower()} cells"
        x = _label(draw, x + 44, y, text) + 48
    x = right
    if cancer is not None:
        draw.rectangle((x, y - 15, x + 30, y + 15), _blend(_PAPER, _CANCER), _CANCER, 3)
        x = _label(draw, x + 44, y, f"cancer area, {100 * cancer.mean():.0f} %") + 48
    _frame(draw, x, y - 15, 30)
    _label(draw, x + 44, y, "the cell patch")
    return picture


def _tissue(pair: CellTissuePair, cancer: NDArray[np.bool_] | None) -> Image.Image:
    """The tissue patch with the cancer area tinted and outlined, and a frame where the cell patch lies."""
    picture = Image.fromarray(pair.tissue)
    if cancer is not None:
        area = Image.fromarray(np.where(cancer, 255, 0).astype(np.uint8))
        border = ImageChops.difference(area.filter(ImageFilter.MaxFilter(5)), area)
        picture.paste(Image.blend(picture, Image.new("RGB", picture.size, _CANCER), _TINT), mask=area)
        picture.paste(_CANCER, mask=border)
    _frame(ImageDraw.Draw(picture), pair.window.x, pair.window.y, WINDOW_SIZE)
    return picture


def _frame(draw: ImageDraw.ImageDraw, x: float, y: float, side: float) -> None:
    """A white square with a dark rim on both sides, its outer edge at (x, y) and `side` long."""
    for inset, color, width in ((0, _INK, 7), (2, _PAPER, 3)):
        draw.rectangle((x + inset, y + inset, x + side - 1 - inset, y + side - 1 - inset), None, color, width)


def _scale_bar(draw: ImageDraw.ImageDraw, right: float, length: int) -> None:
    """A bar of `_BAR` pixels that ends at `right`, above the patch, with its length in words before it."""
    y = _HEAD / 2
    draw.line((right - _BAR, y, right, y), _INK, 6)
    for end in (right - _BAR + 1, right - 2):
        draw.line((end, y - 9, end, y + 9), _INK, 3)
    # The bundled font has no sign for micro.
    draw.text((right - _BAR - 16, y), f"{length / 1000:g} mm", _SOFT, _font(28), anchor="rm")


def _label(draw: ImageDraw.ImageDraw, x: float, y: float, text: str) -> float:
    """Write a legend's text from x on; return where it ends."""
    font = _font(30)
    draw.text((x, y), text, _INK, font, anchor="lm")
    return x + font.getlength(text)


def _shortened(title: str) -> str:
    """A title that leaves the scale bar its place, whatever the pair is called."""
    room, font = PATCH_SIZE - _BAR - 180, _font(34)
    if font.getlength(title) <= room:
        return title
    while font.getlength(title + "…") > room:
        title = title[:-1]
    return title + "…"


def _font(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own font, so that the picture is the same on every machine."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # what a size asks for
    return font


def _blend(below: tuple[int, int, int], above: tuple[int, int, int]) -> tuple[int, int, int]:
    """The tint's color on a plain ground."""
    red, green, blue = (round(b + _TINT * (a - b)) for b, a in zip(below, above, strict=True))
    return red, green, blue
