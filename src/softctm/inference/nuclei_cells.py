"""A model of nuclei as a detector of cell points: some types are tumor cells, all others background cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from softctm.errors import UsageError
from softctm.inference.detector import Prediction
from softctm.inference.detector_options import tumor_types
from softctm.inference.image_detector import ImageDetector
from softctm.inference.nuclei_image import locate_nuclei, nucleus_types
from softctm.inference.stage_times import timed
from softctm.model.model import Model
from softctm.pair import CELL_MPP, CellTissuePair
from softctm.points import CellClass, CellPoints


class NucleiAsCells:
    """Finds the cells of pairs with a model of nuclei; the interface is that of `Detector`.

    Only the cell patch is looked at, resampled to the model's µm per pixel. A cell's point is the pixel in
    which its nucleus' centroid lies; its class follows from the nucleus' type; its score is that type's
    probability, and 0 for a nucleus in which no type was seen, which becomes a background cell.

    Parameters
    ----------
    detector : ImageDetector
        Of a model of the task "nuclei".
    as_cells : sequence of str
        "TYPE=tumor": the types of nuclei that are tumor cells; every other is a background cell.

    Attributes
    ----------
    model, device, notice
        The detector's.
    seconds : dict
        Time spent so far, by stage.

    Raises
    ------
    UsageError
        If the model has no such type; the message lists its types.
    """

    def __init__(self, detector: ImageDetector, as_cells: Sequence[str]) -> None:
        self._detector = detector
        self.model: Model = detector.model
        self.notice = detector.notice
        self.seconds = {"nuclei": 0.0}
        names = [kind.name for kind in nucleus_types(self.model)]
        self._class = np.full(len(names), CellClass.BACKGROUND, np.uint8)
        for name in tumor_types(as_cells):
            if name not in names[1:]:
                raise UsageError(
                    f"--as-cells: the model {self.model.name} has no type '{name}'; it has "
                    f"{', '.join(names[1:])}"
                )
            self._class[names.index(name, 1)] = CellClass.TUMOR

    @property
    def device(self) -> str:
        """What the networks really run on."""
        return self._detector.device

    def __call__(self, pair: CellTissuePair) -> CellPoints:
        """The cells of a pair; an empty `CellPoints` where there are none.

        Raises
        ------
        PairError, ModelError, DeviceError
            As `ImageDetector.__call__`.
        """
        with timed(self.seconds, "nuclei"):
            found = locate_nuclei(self._detector, pair.cell, mpp=CELL_MPP)
        table = found.table
        x, y = (
            np.floor((center + 0.5) * factor).astype(np.int32)
            for center, factor in zip((table.x, table.y), found.scale, strict=True)
        )
        score = np.where(table.type > 0, table.type_probability, 0).astype(np.float32)
        return CellPoints(x, y, self._class[table.type], score)

    def predict(self, pair: CellTissuePair, *, maps: bool = False) -> Prediction:
        """The cells of a pair; errors as `__call__`, and UsageError if maps are asked for: there are none."""
        if maps:
            raise UsageError(
                f"the model {self.model.name} finds nuclei and maps neither tissue nor cells; do without maps"
            )
        return Prediction(self(pair))
