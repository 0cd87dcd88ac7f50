"""Pictures small enough for a page: JPEG patches with an upper size, and tissue areas as outlines."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.measure import approximate_polygon, find_contours

CELL_LIMIT = 420_000
"""Most bytes of a cell patch's JPEG file: 1024 × 1024 pixels, near quality 85 for most stained tissue."""

TISSUE_LIMIT = 130_000
"""Most bytes of a tissue patch's JPEG file, drawn at half its size."""

TISSUE_SIDE = 512
"""Side at which the tissue patch is stored, pixels."""

_QUALITIES = (88, 80, 70, 60, 45, 30, 15, 5)
_STRIDE = 2
_TOLERANCE = 0.6


def jpeg_uri(image: NDArray[np.uint8], limit: int, side: int | None = None) -> str:
    """Encode an image as a JPEG `data:` address.

    Parameters
    ----------
    image : (H, W, 3) uint8
        RGB.
    limit : int
        Most bytes of the file. The quality falls until it fits; at quality 5 it is taken as it is.
    side : int, optional
        Shrink to this width and height first.

    Returns
    -------
    str
        `data:image/jpeg;base64,…`, a third longer than the file.
    """
    picture = Image.fromarray(image)
    if side is not None:
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    for quality in _QUALITIES:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= limit:
            break
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def outline(mask: NDArray[np.bool_]) -> str:
    """Turn an area into an SVG path in the mask's own pixels, to be filled by the even-odd rule.

    Half the resolution and slightly rounded: it is for the eye, the scores come from the pixels.

    Parameters
    ----------
    mask : (H, W) bool
        The area.

    Returns
    -------
    str
        Closed loops, holes among them; empty for an empty mask.
    """
    if not mask.any():
        return ""
    soft = gaussian_filter(mask[::_STRIDE, ::_STRIDE].astype(np.float32), 1.0, mode="nearest")
    loops = []
    for contour in find_contours(np.pad(soft, 1), 0.5):
        polygon = approximate_polygon(contour, _TOLERANCE)
        if len(polygon) < 4:
            continue  # first and last point are the same: fewer than three corners enclose nothing
        corners = (polygon[:-1] - 1.0) * _STRIDE + (_STRIDE - 1) / 2
        loops.append("M" + "L".join(f"{column:.0f},{row:.0f}" for row, column in corners) + "Z")
    return "".join(loops)
