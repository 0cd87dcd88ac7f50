"""Whole slides: open one, read any window at any resolution, find the tissue, and say who owns which cell."""

from softctm.slides.opening import open_slide
from softctm.slides.slide import Slide

__all__ = ["Slide", "open_slide"]
