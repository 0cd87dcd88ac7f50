"""What is needed of a detector that finds cells on slides, and what its findings depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from softctm.model import Model
    from softctm.points import DetectedCells

_DEFAULT_DISTANCE = 3


class FieldDetector(Protocol):
    """What is used of a `softctm.inference.detector.Detector`."""

    model: Model
    notice: str | None
    views: int

    @property
    def device(self) -> str:
        """Where the networks really run."""

    @property
    def callers(self) -> int:
        """From how many threads at once it may be called."""

    @property
    def seconds_in_networks(self) -> float:
        """Time spent so far inside the networks."""

    def tissue_map(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities (C, 1024, 1024) of an image (1024, 1024, 3) at 0.8 µm per pixel."""

    def find_cells(
        self, image: NDArray[np.uint8], context: NDArray[np.float32] | None = None
    ) -> DetectedCells:
        """Cells of an image (1024, 1024, 3) at 0.2 µm, given the tissue map's window (C, 256, 256) there."""


def peak_distance(model: Model) -> int:
    """The peak rule's distance, pixels of 0.2 µm; the authors' where cells are found by another rule."""
    return int(getattr(model.postprocessing, "distance_px", _DEFAULT_DISTANCE))


def cancer_class(model: Model) -> int:
    """Number of the tissue class that is cancer area."""
    classes = model.tissue.head.classes
    return next((index for index, name in enumerate(classes) if "cancer" in name), 1)
