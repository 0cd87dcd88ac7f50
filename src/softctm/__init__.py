"""SoftCTM: finds background and tumor cells in H&E tissue from paired cell and tissue patches.

>>> from softctm import CellTissuePair, load_detector
>>> detector = load_detector("model_weights")
>>> points = detector(CellTissuePair(cell=cell_rgb, tissue=tissue_rgb, window=TissueWindow(512, 0)))
"""

__version__ = "0.1.0"

from softctm.pair import CellTissuePair, TissueWindow
from softctm.points import CellClass, CellPoints

__all__ = ["CellClass", "CellPoints", "CellTissuePair", "TissueWindow", "__version__"]
