"""SoftCTM: finds background and tumor cells in H&E tissue from paired cell and tissue patches.

>>> from softctm import CellTissuePair, load_detector
>>> detector = load_detector("model_weights")
>>> points = detector(CellTissuePair(cell=cell_rgb, tissue=tissue_rgb, window=TissueWindow(512, 0)))
"""

__version__ = "0.1.0"

import logging
import os
from typing import TYPE_CHECKING, Any

from softctm.pair import CellTissuePair, TissueWindow
from softctm.points import CellClass, CellPoints

if TYPE_CHECKING:
    from softctm.inference.load import load_detector

# As a library it says nothing, unless its user configures logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Newer ONNX Runtimes report their use to their makers, unless told not to before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["CellClass", "CellPoints", "CellTissuePair", "TissueWindow", "__version__", "load_detector"]


def __getattr__(name: str) -> Any:
    """Import the detector, and ONNX Runtime with it, only when it is asked for."""
    if name == "load_detector":
        from softctm.inference.load import load_detector

        return load_detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
