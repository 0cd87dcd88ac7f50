"""Synthetic H&E-like pairs whose cells are known: the sample of the project, and input for its tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.ocelot import TISSUE_BACKGROUND, TISSUE_CANCER, TISSUE_UNKNOWN
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP, WINDOW_SIZE, CellTissuePair, TissueWindow
from softctm.phantom.noise import FIELD, grid
from softctm.phantom.render import render
from softctm.phantom.scene import Patient, Scene
from softctm.points import CellClass, CellPoints

WINDOW_STEP = 16
"""Windows begin at multiples of this, tissue pixels: their offsets are then exact in slide pixels too."""


@dataclass(frozen=True, eq=False)
class DrawnTruth:
    """What the generator knows about a pair.

    Attributes
    ----------
    cells : CellPoints
        Every nucleus whose center lies in the cell patch; scores are 1.
    tissue : (1024, 1024) uint8
        OCELOT's annotation of the tissue patch: 1 background, 2 cancer area, 255 unknown.
    """

    cells: CellPoints
    tissue: NDArray[np.uint8]


def draw_pair(
    seed: int, patient: int | None = None, name: str = "phantom"
) -> tuple[CellTissuePair, DrawnTruth]:
    """Draw one pair; the same numbers give the same pair.

    Parameters
    ----------
    seed : int
        Of the scene, ≥ 0.
    patient : int, optional
        Seed of staining, tumor type and architecture; the scene's own if absent.
    name : str
        The pair's name in messages.

    Returns
    -------
    CellTissuePair, DrawnTruth
        The cell patch shows the same scene as its window in the tissue patch.
    """
    rng = np.random.default_rng([seed, 1])
    scene = Scene(rng, Patient.draw(np.random.default_rng([seed if patient is None else patient, 2])))
    annotation = _annotation(scene)
    window = _choose_window(rng, annotation)
    start = (window.x * TISSUE_MPP, window.y * TISSUE_MPP)
    pair = CellTissuePair(
        cell=render(scene, rng, start, PATCH_SIZE, CELL_MPP),
        tissue=render(scene, rng, (0.0, 0.0), PATCH_SIZE, TISSUE_MPP),
        window=window,
        name=name,
    )
    return pair, DrawnTruth(_cells(scene, start), annotation)


def _annotation(scene: Scene) -> NDArray[np.uint8]:
    pixels = grid(0, PATCH_SIZE, TISSUE_MPP)
    cancer = scene.regions(pixels, pixels).cancer
    labels = np.where(cancer >= 0.5, TISSUE_CANCER, TISSUE_BACKGROUND)
    # Annotators leave out what they cannot tell: here, the very border.
    labels[(cancer > 0.02) & (cancer < 0.98)] = TISSUE_UNKNOWN
    return labels.astype(np.uint8)


def _choose_window(rng: np.random.Generator, annotation: NDArray[np.uint8]) -> TissueWindow:
    """A window where cancer and background both show, if there is one."""
    starts = np.arange(0, PATCH_SIZE - WINDOW_SIZE + 1, WINDOW_STEP)
    share = _window_means(annotation == TISSUE_CANCER, starts)
    candidates = np.argwhere(np.abs(share - 0.6) <= max(0.15, float(np.abs(share - 0.6).min())))
    row, column = candidates[rng.integers(len(candidates))]
    return TissueWindow(int(starts[column]), int(starts[row]))


def _window_means(mask: NDArray[np.bool_], starts: NDArray[np.int_]) -> NDArray[np.float64]:
    sums = np.zeros((PATCH_SIZE + 1, PATCH_SIZE + 1))
    sums[1:, 1:] = mask.cumsum(0).cumsum(1)
    ends = starts + WINDOW_SIZE
    total = sums[np.ix_(ends, ends)] - sums[np.ix_(starts, ends)] - sums[np.ix_(ends, starts)]
    return np.asarray((total + sums[np.ix_(starts, starts)]) / WINDOW_SIZE**2)


def _cells(scene: Scene, start: tuple[float, float]) -> CellPoints:
    pixel = np.floor((scene.nuclei.center - start) / CELL_MPP).astype(np.int32)
    inside = ((pixel >= 0) & (pixel < PATCH_SIZE)).all(axis=1)
    label = np.where(scene.nuclei.tumor[inside], CellClass.TUMOR, CellClass.BACKGROUND).astype(np.uint8)
    x, y = pixel[inside].T
    return CellPoints(x.copy(), y.copy(), label, np.ones(len(label), dtype=np.float32))


__all__ = ["FIELD", "DrawnTruth", "draw_pair"]
