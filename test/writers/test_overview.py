"""The picture of a pair: both patches as they are, marks, tint and frame where they belong."""

from __future__ import annotations

import numpy as np

from softctm.inference.detector import Prediction
from softctm.pair import CellTissuePair, TissueWindow
from softctm.points import CellPoints
from softctm.writers.overview import overview

RANDOM = np.random.default_rng(3)
PAIR = CellTissuePair(
    RANDOM.integers(0, 256, (1024, 1024, 3), np.uint8),
    RANDOM.integers(0, 256, (1024, 1024, 3), np.uint8),
    TissueWindow(100, 600),
    "A 17",
)
CELLS = CellPoints(
    np.array([300, 700], np.int32),
    np.array([200, 900], np.int32),
    np.array([2, 1], np.uint8),
    np.array([0.9, 0.8], np.float32),
)


def cancer_from_column(column: int) -> np.ndarray:
    cancer = np.zeros((1024, 1024), np.float32)
    cancer[:, column:] = 1
    return np.stack([1 - cancer, cancer])


def patches(picture: np.ndarray, window: tuple[int, int] = (64, 24)) -> tuple[np.ndarray, np.ndarray]:
    """Cell and tissue patch, cut out of the picture."""
    top, left = window
    right = left + 1024 + 32
    return picture[top : top + 1024, left : left + 1024], picture[top : top + 1024, right : right + 1024]


def test_only_marks_tint_and_frame_differ_from_the_images() -> None:
    cells, tissue = patches(np.asarray(overview(PAIR, Prediction(CELLS, cancer_from_column(700)))))
    changed = (cells != PAIR.cell).any(-1)
    near = np.zeros_like(changed)
    for x, y in ((300, 200), (700, 900)):
        assert changed[y, x + 9]
        near[y - 12 : y + 13, x - 12 : x + 13] = True
    assert not changed[~near].any()

    changed = (tissue != PAIR.tissue).any(-1)
    assert changed[:, 700:].mean() > 0.99
    frame = np.zeros_like(changed)
    frame[600:856, 100:356] = True
    frame[607:849, 107:349] = False
    assert changed[frame].mean() > 0.9
    border = np.zeros_like(changed)
    border[:, 690:] = True
    assert not changed[~frame & ~border].any()


def test_without_cells_and_cancer_the_patches_stay_as_they_are() -> None:
    nothing = Prediction(CellPoints.empty(), cancer_from_column(1024))
    cells, tissue = patches(np.asarray(overview(PAIR, nothing)))
    assert np.array_equal(cells, PAIR.cell)
    assert np.array_equal(tissue[:600], PAIR.tissue[:600])


def test_without_a_tissue_map_no_cancer_area_is_shown() -> None:
    nothing, unknown = (
        np.asarray(overview(PAIR, Prediction(CELLS, tissue))) for tissue in (cancer_from_column(1024), None)
    )
    assert np.array_equal(nothing[: 64 + 1024], unknown[: 64 + 1024])
    foot = unknown[64 + 1024 :, 24 + 1024 :]
    green = (foot.astype(int)[..., 1] - foot[..., 0]) > 40
    assert not green.any()
    assert (foot[:, :200] < 128).any()  # the frame and what it stands for are still there


def test_a_third_class_is_no_cancer() -> None:
    unknown = np.concatenate([0.1 * np.ones((2, 1024, 1024)), np.ones((1, 1024, 1024))]).astype(np.float32)
    _, tissue = patches(np.asarray(overview(PAIR, Prediction(CellPoints.empty(), unknown))))
    assert np.array_equal(tissue[:600], PAIR.tissue[:600])


def test_the_longest_name_leaves_the_rest_of_the_picture_alone() -> None:
    found = Prediction(CELLS, cancer_from_column(700))
    named = CellTissuePair(PAIR.cell, PAIR.tissue, PAIR.window, "long name " * 30)
    first, second = (np.asarray(overview(pair, found)) for pair in (PAIR, named))
    assert first.shape == second.shape
    assert np.array_equal(first[64:], second[64:])
    scale_bar = np.s_[:64, 24 + 1024 - 250 - 120 :]
    assert np.array_equal(first[scale_bar], second[scale_bar])
