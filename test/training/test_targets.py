"""Targets against the paper's words, spelled out pixel by pixel and cell by cell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from training_cases import BC, TC, cells, discs

from softctm.points import CellPoints
from softctm.training.targets import circle_target, hard_target, soft_target

SHAPE = (30, 36)
rows = st.tuples(st.integers(0, SHAPE[1] - 1), st.integers(0, SHAPE[0] - 1), st.sampled_from([BC, TC]))
some_cells = st.lists(rows, max_size=6, unique_by=lambda row: row[:2]).map(lambda found: cells(*found))


def soft_cell_by_cell(nuclei: NDArray[np.int32], points: CellPoints, sigma_um: float) -> NDArray[np.float64]:
    """Each cell's Gaussian in turn; where cells meet, the larger value wins and the other class gets none."""
    planes = np.zeros((3, *nuclei.shape))
    for row in range(nuclei.shape[0]):
        for column in range(nuclei.shape[1]):
            best = 0.0
            for x, y, label in zip(points.x, points.y, points.label, strict=True):
                squared_um = ((column - x) ** 2 + (row - y) ** 2) * 0.2**2
                value = math.exp(-squared_um / (2 * sigma_um**2)) if nuclei[row, column] else 0.0
                if value > best:
                    best = value
                    planes[1:, row, column] = 0
                    planes[label, row, column] = value
    planes[0] = 1 - planes[1:].sum(0)
    return planes


def test_circle_of_1_4_um_is_every_pixel_within_seven_pixels() -> None:
    target = circle_target((40, 50), cells((20, 15, TC)))
    expected = np.zeros((40, 50), np.float32)
    for y in range(40):
        for x in range(50):
            expected[y, x] = (x - 20) ** 2 + (y - 15) ** 2 <= 49
    assert expected.sum() == 149  # the lattice points of a disc of radius 7, the four on its axes included
    np.testing.assert_array_equal(target[2], expected)
    np.testing.assert_array_equal(target[1], 0)
    np.testing.assert_array_equal(target[0], 1 - expected)


def test_circle_of_another_radius_cut_by_the_border() -> None:
    target = circle_target((20, 20), cells((0, 0, BC)), radius_um=0.4)
    assert np.argwhere(target[1]).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [2, 0]]


def test_where_circles_overlap_the_nearer_cell_wins() -> None:
    target = circle_target((20, 30), cells((10, 10, BC), (18, 10, TC)))
    assert target[:, 10, 13].tolist() == [0, 1, 0]
    assert target[:, 10, 15].tolist() == [0, 0, 1]


def test_hard_target_is_every_nucleus_in_its_class() -> None:
    points = cells((8, 8, TC), (24, 8, BC), (8, 24, TC))
    nuclei = discs((32, 32), points, 4)
    target = hard_target(nuclei, points)
    np.testing.assert_array_equal(target[1], nuclei == 2)
    np.testing.assert_array_equal(target[2], (nuclei == 1) | (nuclei == 3))
    np.testing.assert_array_equal(target[0], nuclei == 0)


def test_soft_target_by_hand() -> None:
    points = cells((16, 16, TC))
    target = soft_target(discs((33, 33), points, 10), points, sigma_um=2.0)
    assert target[2, 16, 16] == 1
    assert target[2, 16, 26] == pytest.approx(math.exp(-0.5), abs=1e-6)  # 10 px are 2 µm, one σ
    assert target[0, 16, 26] == pytest.approx(1 - math.exp(-0.5), abs=1e-6)
    assert target[2, 16, 27] == 0  # outside the nucleus
    assert target[1].max() == 0


def test_sigma_is_3_um_by_default() -> None:
    points = cells((20, 20, BC))
    target = soft_target(np.ones((41, 41), np.int32), points)
    assert target[1, 20, 35] == pytest.approx(math.exp(-0.5), abs=1e-6)  # 15 px


@settings(max_examples=25, deadline=None)
@given(points=some_cells, seed=st.integers(0, 1000), sigma_um=st.sampled_from([1.0, 2.0, 3.0]))
def test_soft_target_is_the_larger_of_the_cells_gaussians(
    points: CellPoints, seed: int, sigma_um: float
) -> None:
    nuclei = np.random.default_rng(seed).integers(0, 2, SHAPE).astype(np.int32)
    expected = soft_cell_by_cell(nuclei, points, sigma_um)
    target = soft_target(nuclei, points, sigma_um)
    np.testing.assert_allclose(target[0], expected[0], atol=1e-6)
    # Where two cells of different classes are equally near, either may have the pixel.
    squared = (
        np.mgrid[: SHAPE[0], : SHAPE[1]][:, None] - np.stack([points.y, points.x])[..., None, None]
    ) ** 2
    distance = squared.sum(0)
    if len(points):
        nearest = distance == distance.min(0)
        tied = nearest[points.label == BC].any(0) & nearest[points.label == TC].any(0)
        np.testing.assert_allclose(target[:, ~tied], expected[:, ~tied], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(points=some_cells, seed=st.integers(0, 1000))
def test_every_target_is_a_distribution_over_the_classes(points: CellPoints, seed: int) -> None:
    nuclei = np.random.default_rng(seed).integers(0, len(points) + 1, SHAPE).astype(np.int32)
    for target in (circle_target(SHAPE, points), hard_target(nuclei, points), soft_target(nuclei, points)):
        assert target.shape == (3, *SHAPE)
        assert target.dtype == np.float32
        assert target.min() >= 0
        np.testing.assert_allclose(target.sum(0), 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["circle", "hard", "soft"])
def test_patch_without_cells_is_all_background(kind: str) -> None:
    none, nuclei = CellPoints.empty(), np.zeros(SHAPE, np.int32)
    target = {
        "circle": lambda: circle_target(SHAPE, none),
        "hard": lambda: hard_target(nuclei, none),
        "soft": lambda: soft_target(nuclei, none),
    }[kind]()
    np.testing.assert_array_equal(target[0], 1)
    np.testing.assert_array_equal(target[1:], 0)
