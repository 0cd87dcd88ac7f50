"""A rectangle of pixels."""

from __future__ import annotations

from typing import NamedTuple


class Box(NamedTuple):
    """A half-open rectangle [left, right) × [top, bottom), pixels; it may leave the image."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Length along x."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Length along y."""
        return self.bottom - self.top
