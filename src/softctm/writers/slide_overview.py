"""`overview.png`: a slide at a glance: densities of what was found, what was seen, areas, the numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_MAIN, _GAP = (900, 760), 24
_SIDE = ((1, 440, 350), (2, 380, 350), (2, 320, 220))
"""Columns of densities, and room for one, by the number of their rows: up to two, two, three."""
_INK, _FAINT, _PAPER = (32, 33, 36), (110, 114, 120), (255, 255, 255)
_CANCER, _REGION, _FIELDS = (196, 30, 122), (0, 110, 60), (90, 90, 90)
_BLUR_UM = 60.0
_BARS_UM = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)


Color = tuple[int, int, int]


@dataclass(frozen=True)
class Panel:
    """How a density is shown.

    Attributes
    ----------
    name : str
        Of what is counted.
    ramp : sequence of (int, int, int)
        RGB colors of rising density.
    """

    name: str
    ramp: Sequence[Color]

    @classmethod
    def of_color(cls, name: str, color: Color) -> Panel:
        """From white over a color to its dark shade."""
        shades = [(0.0, 255), (0.45, 255), (1.0, 255), (0.65, 0), (0.3, 0)]
        ramp = [tuple(round(part * c + (1 - part) * ground) for c in color) for part, ground in shades]
        return cls(name, tuple((r, g, b) for r, g, b in ramp))


@dataclass(frozen=True, eq=False)
class OverviewContent:
    """What the picture shows; grids lie on the mask's pixels.

    Attributes
    ----------
    title : str
    image : (h, w, 3) uint8
        The slide.
    image_um : float
        Side of an image pixel, µm.
    width_um, height_um : float
        Its size.
    grid_um : float
        Side of a grid pixel, µm.
    looked_at : (H, W) float32
        Share that was looked at, 0 … 1.
    panels : sequence of Panel
        Up to six.
    density : (K, H, W)
        What is counted, a grid pixel, in the panels' order.
    cancer : (H, W) float32 or None
        Share of cancer area, 0 … 1, where it is known.
    numbers : sequence of (str, str)
        What stands below: a name and a value.
    rings : sequence of (N, 2) float64
        Outlines of the region, µm.
    """

    title: str
    image: NDArray[np.uint8]
    image_um: float
    width_um: float
    height_um: float
    grid_um: float
    looked_at: NDArray[np.float32]
    panels: Sequence[Panel]
    density: NDArray[np.integer]
    cancer: NDArray[np.float32] | None = None
    numbers: Sequence[tuple[str, str]] = ()
    rings: Sequence[NDArray[np.float64]] = field(default_factory=tuple)


def draw_overview(content: OverviewContent) -> bytes:
    """Draw the picture, a PNG."""
    main = _scale(content, _MAIN)
    side_columns, *room = _SIDE[max(0, (len(content.panels) - 1) // 2)]
    side_rows = -(-len(content.panels) // side_columns)
    side = _scale(content, (room[0], room[1]))
    main_w, main_h = _size(content, main)
    side_w, side_h = _size(content, side)
    top = 64
    right = _GAP + main_w + _GAP
    body = max(main_h + 44, side_rows * (side_h + 64))
    side_step = max(side_w, 320) + _GAP
    width = max(right + side_columns * side_step, 900)
    columns = max(1, (width - 2 * _GAP) // 300)
    lines = -(-len(content.numbers) // columns)
    canvas = Image.new("RGB", (width, top + body + 20 + 46 * lines + _GAP), _PAPER)
    draw = ImageDraw.Draw(canvas)
    _text(draw, (_GAP, 18), content.title, _INK, 26)
    canvas.paste(_thumbnail(content, main), (_GAP, top))
    draw.rectangle((_GAP - 1, top - 1, _GAP + main_w, top + main_h), outline=_FAINT)
    _legend(draw, _GAP, top + main_h + 10, content)
    _scale_bar(draw, content, main, _GAP + main_w, top + main_h + 10)
    for index, panel in enumerate(content.panels):
        x, y = right + index % side_columns * side_step, top + index // side_columns * (side_h + 64)
        picture, highest = _density(content, index, (side_w, side_h))
        _text(draw, (x, y - 2), f"{panel.name} per mm²", _INK, 17)
        canvas.paste(picture, (x, y + 24))
        draw.rectangle((x - 1, y + 23, x + side_w, y + 24 + side_h), outline=_FAINT)
        _ramp_bar(draw, x, y + 30 + side_h, min(side_w, 220), panel.ramp, highest)
    y = top + body + 16
    for index, (name, value) in enumerate(content.numbers):
        place = (_GAP + index % columns * 300, y + index // columns * 46)
        _text(draw, place, name, _FAINT, 14)
        _text(draw, (place[0], place[1] + 16), value, _INK, 19)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _thumbnail(content: OverviewContent, scale: float) -> Image.Image:
    """The slide, its cancer area tinted and outlined, borders of what was looked at, the region."""
    size = _size(content, scale)
    picture = np.asarray(_cropped(content).resize(size)).astype(np.float32)
    seen = _resized(content, content.looked_at, size) >= 0.5
    cancer = np.zeros_like(seen)
    if content.cancer is not None:
        cancer = _resized(content, content.cancer, size) >= 0.5
    picture[cancer] = 0.8 * picture[cancer] + 0.2 * np.array(_CANCER, np.float32)
    if not len(content.rings):
        picture[_edge(seen, 1)] = _FIELDS
    picture[_edge(cancer, 2)] = _CANCER
    image = Image.fromarray(np.rint(picture).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for ring in content.rings:
        draw.line([(float(x * scale), float(y * scale)) for x, y in ring], _REGION, 3)
    return image


def _density(content: OverviewContent, index: int, size: tuple[int, int]) -> tuple[Image.Image, float]:
    """What is counted a mm², smoothed, in color; and the value of the darkest color."""
    from scipy import ndimage

    sigma = _BLUR_UM / content.grid_um
    area = (content.grid_um / 1000) ** 2
    counts = ndimage.gaussian_filter(content.density[index].astype(np.float32), sigma, mode="constant")
    seen = ndimage.gaussian_filter(content.looked_at, sigma, mode="constant")
    density = np.where(content.looked_at > 0, counts / np.maximum(seen, 0.05) / area, 0)
    highest = _round_up(float(np.quantile(density[density > 0], 0.995)) if (density > 0).any() else 1.0)
    share = _resized(content, (density / highest).clip(0, 1).astype(np.float32), size)
    colors = _colored(share, content.panels[index].ramp)
    colors[_resized(content, content.looked_at, size) < 0.5] = (238, 238, 240)
    return Image.fromarray(colors), highest


def _colored(share: NDArray[np.float32], colors_of_ramp: Sequence[Color]) -> NDArray[np.uint8]:
    ramp = np.array(colors_of_ramp, np.float32)
    stops = np.linspace(0, 1, len(ramp))
    channels = [np.interp(share, stops, ramp[:, channel]) for channel in range(3)]
    colors: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colors


def _ramp_bar(
    draw: ImageDraw.ImageDraw, x: int, y: int, width: int, ramp: Sequence[Color], highest: float
) -> None:
    for column, color in enumerate(_colored(np.linspace(0, 1, width, dtype=np.float32), ramp).tolist()):
        draw.line((x + column, y, x + column, y + 10), tuple(color))
    draw.rectangle((x, y, x + width, y + 10), outline=_FAINT)
    draw.text((x, y + 13), "0", _FAINT, _font(13))
    draw.text((x + width, y + 13), f"{highest:,.0f}", _FAINT, _font(13), anchor="ra")


def _legend(draw: ImageDraw.ImageDraw, x: int, y: int, content: OverviewContent) -> None:
    entries = [("cancer area", _CANCER)] if content.cancer is not None else []
    entries.append(("region of interest", _REGION) if len(content.rings) else ("looked at", _FIELDS))
    for name, color in entries:
        draw.line((x, y + 9, x + 22, y + 9), color, 3)
        draw.text((x + 28, y), name, _INK, _font(15))
        x += 28 + round(draw.textlength(name, _font(15))) + 22


def _scale_bar(draw: ImageDraw.ImageDraw, content: OverviewContent, scale: float, right: int, y: int) -> None:
    longest = max(0.25 * content.width_um, _BARS_UM[0])
    length = max(bar for bar in _BARS_UM if bar <= longest)
    pixels = round(length * scale)
    text = f"{length / 1000:g} mm"
    draw.line((right - pixels, y + 4, right, y + 4), _INK, 5)
    draw.text((right - pixels / 2, y + 10), text, _INK, _font(15), anchor="ma")


def _scale(content: OverviewContent, box: tuple[int, int]) -> float:
    """Pixels a µm."""
    return min(box[0] / content.width_um, box[1] / content.height_um)


def _size(content: OverviewContent, scale: float) -> tuple[int, int]:
    return max(1, round(content.width_um * scale)), max(1, round(content.height_um * scale))


def _cropped(content: OverviewContent) -> Image.Image:
    """The image without what lies beyond the slide's border."""
    width, height = (max(1, round(side / content.image_um)) for side in (content.width_um, content.height_um))
    return Image.fromarray(content.image[:height, :width])


def _resized(
    content: OverviewContent, grid: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.float32]:
    ends = (content.width_um / content.grid_um, content.height_um / content.grid_um)
    box = (0.0, 0.0, min(ends[0], grid.shape[1]), min(ends[1], grid.shape[0]))
    picture = Image.fromarray(grid.astype(np.float32)).resize(size, Image.Resampling.BILINEAR, box)
    return np.asarray(picture)


def _edge(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    from scipy import ndimage

    edge: NDArray[np.bool_] = mask & ~ndimage.binary_erosion(mask, iterations=width)
    return edge


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(max(value, 1)))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value))


def _text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, color: tuple[int, int, int], size: int
) -> None:
    """Text from its top left corner on; Pillow's own font has no raised 2, so a small one stands in."""
    x, y = place
    for index, part in enumerate(text.split("²")):
        if index:
            draw.text((x, y), "2", color, _font(round(0.65 * size)))
            x += draw.textlength("2", _font(round(0.65 * size)))
        draw.text((x, y), part, color, _font(size))
        x += draw.textlength(part, _font(size))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
