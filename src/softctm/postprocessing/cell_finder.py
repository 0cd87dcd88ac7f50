"""From cell probabilities to cells, by the rule that the model's manifest chooses."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from softctm.ort.runtime import Runtime, Value
from softctm.points import CellPoints
from softctm.postprocessing.peaks import Peaks, peaks_graph, points_from_candidates
from softctm.postprocessing.watershed import HardMask, cells_from_hard_mask

Postprocessing = Peaks | HardMask


class CellFinder:
    """A rule made ready to run where the probabilities lie.

    Peaks are searched on the device, and only the candidates leave it; a hard mask is segmented on the host.
    """

    def __init__(self, runtime: Runtime, rule: Postprocessing) -> None:
        self._rule = rule
        self._search = runtime.helper(peaks_graph(rule), "peaks") if isinstance(rule, Peaks) else None

    def __call__(self, probability: Value) -> CellPoints:
        """The cells in a map of probabilities (1, 3, H, W) float32 on the device."""
        if isinstance(self._rule, HardMask):
            return cells_from_hard_mask(probability.numpy()[0], self._rule)
        assert self._search is not None
        positions, probabilities, is_flat = (
            value.numpy() for value in self._search(probability, to_host=(0, 1, 2))
        )
        if is_flat:
            return CellPoints.empty()
        return points_from_candidates(positions, probabilities, self._rule.distance_px)


def find_cells(probability: NDArray[np.float32], rule: Postprocessing | None = None) -> CellPoints:
    """The cells in a map of probabilities, on the CPU.

    Parameters
    ----------
    probability : (3, H, W) float32
        None, background cell, tumor cell; 0.2 µm per pixel, both sides longer than four times the blur's σ.
    rule : Peaks or HardMask
        By default the authors' rule.

    Raises
    ------
    ValueError
        If the map has another shape, or values that are not finite.
    """
    if probability.ndim != 3 or probability.shape[0] != 3:
        raise ValueError(f"probability must be (3, H, W), not {probability.shape}")
    if not np.isfinite(probability).all():
        raise ValueError("probability holds values that are not finite")
    finder, runtime = _on_cpu(rule if rule is not None else Peaks())
    return finder(runtime.value(probability[None].astype(np.float32, copy=False)))


@lru_cache(maxsize=64)
def _on_cpu(rule: Postprocessing) -> tuple[CellFinder, Runtime]:
    runtime = Runtime("cpu")
    return CellFinder(runtime, rule), runtime
