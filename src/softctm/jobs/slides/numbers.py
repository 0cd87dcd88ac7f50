"""What the numbers of slides have in common, whatever was looked for."""

from __future__ import annotations

from softctm.slides.mask import MASK_MPP

MM2 = (MASK_MPP / 1000) ** 2
"""Area of a pixel of the mask."""


def ratio(count: float, of: float) -> float | None:
    """Rounded as `slide.json` holds it; None where there is nothing to divide by."""
    return round(count / of, 4) if of > 0 else None
