"""Cutting the views of an image into passes, and halving a pass when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from softctm.inference.tta import View
from softctm.ort.runtime import OutOfDeviceMemoryError


class ViewBatches:
    """How many views go through a network at once.

    Parameters
    ----------
    size : int
        Views in one pass to begin with.
    fixed : int or None
        Images that the networks insist on in every pass; a pass with fewer views is filled up.

    Attributes
    ----------
    size : int
        Views in one pass; halved, and never raised again, where memory runs out.
    """

    def __init__(self, size: int, fixed: int | None) -> None:
        self.size = fixed or size
        self.fixed = fixed

    def rows(self, views: Sequence[View]) -> int:
        """Images in a pass over some views."""
        return self.fixed or len(views)

    def run(self, views: tuple[View, ...], one_pass: Callable[[tuple[View, ...]], None]) -> None:
        """Call `one_pass` with some views after the other; it must change nothing where it fails.

        Raises
        ------
        DeviceError
            If memory runs out even for a single view.
        """
        done = 0
        while done < len(views):
            some = views[done : done + self.size]
            try:
                one_pass(some)
            except OutOfDeviceMemoryError:
                if self.fixed or len(some) == 1:
                    raise
                self.size = min(self.size, len(some) // 2)
                continue
            done += len(some)
