"""From an input folder to cell/tissue pairs, whatever its layout."""

from softctm.readers.input_layouts import open_pairs
from softctm.readers.source import PairSource

__all__ = ["PairSource", "open_pairs"]
