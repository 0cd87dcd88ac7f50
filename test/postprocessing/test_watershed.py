"""The watershed on drawn nuclei whose places and classes are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from softctm.points import CellPoints
from softctm.postprocessing.methods import find_cells
from softctm.postprocessing.watershed import Watershed, cells_by_watershed

SIZE = 200


def disc(row: float, column: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def drawn(*nuclei: tuple[NDArray[np.bool_], int, float]) -> NDArray[np.float32]:
    """Probabilities with masks of a class (1 or 2) and a probability drawn on empty tissue."""
    probability = np.zeros((3, SIZE, SIZE), np.float32)
    probability[0] = 0.95
    probability[1] = probability[2] = 0.025
    for mask, label, value in nuclei:
        probability[:, mask] = 0.05
        probability[label, mask] = value
        probability[0, mask] = 0.95 - value
    return probability


def found(probability: NDArray[np.float32], settings: Watershed) -> CellPoints:
    detected = cells_by_watershed(probability, settings)
    assert len(detected.points) == len(detected.probability) == len(detected.height)
    return detected.points


def cells(points: CellPoints) -> set[tuple[int, int, int]]:
    return set(zip(points.x.tolist(), points.y.tolist(), points.label.tolist(), strict=True))


def test_separate_nuclei_give_their_centers_classes_and_mean_probabilities() -> None:
    probability = drawn((disc(50, 60, 10), 2, 0.9), (disc(140, 30, 8), 1, 0.8))
    points = found(probability, Watershed())
    assert cells(points) == {(60, 50, 2), (30, 140, 1)}
    np.testing.assert_allclose(points.score[np.argsort(points.label)], [0.8, 0.9], atol=1e-5)


def test_touching_nuclei_are_split_and_each_keeps_its_class() -> None:
    left, right = disc(100, 80, 14), disc(100, 104, 14)
    probability = drawn((left, 2, 0.9), (right & ~left, 1, 0.85))
    points = found(probability, Watershed())
    assert len(points) == 2
    by_class = dict(
        zip(points.label.tolist(), zip(points.x.tolist(), points.y.tolist(), strict=True), strict=True)
    )
    assert np.hypot(by_class[2][0] - 80, by_class[2][1] - 100) < 3
    assert np.hypot(by_class[1][0] - 104, by_class[1][1] - 100) < 3


def test_holes_are_filled() -> None:
    ring = disc(100, 100, 15) & ~disc(100, 100, 6)
    assert cells(found(drawn((ring, 2, 0.9)), Watershed())) == {(100, 100, 2)}


def test_small_objects_are_dropped_by_area() -> None:
    speck = disc(50, 50, 4)
    area = int(speck.sum())
    probability = drawn((speck, 2, 0.9), (disc(120, 120, 12), 1, 0.9))
    assert cells(found(probability, Watershed(min_area_px=area))) == {
        (50, 50, 2),
        (120, 120, 1),
    }
    assert cells(found(probability, Watershed(min_area_px=area + 1))) == {(120, 120, 1)}


def test_the_majority_of_pixels_names_the_object() -> None:
    nucleus = disc(100, 100, 12)
    right = nucleus & (np.mgrid[:SIZE, :SIZE][1] > 103)
    assert found(drawn((nucleus, 1, 0.8), (right, 2, 0.9)), Watershed()).label.tolist() == [1]


def test_empty_maps_have_no_cells() -> None:
    assert len(found(drawn(), Watershed())) == 0
    specks = drawn((disc(50, 50, 2), 2, 0.9))
    assert len(found(specks, Watershed())) == 0


def test_is_chosen_by_the_rules_type() -> None:
    probability = drawn((disc(50, 60, 10), 2, 0.9))
    assert cells(find_cells(probability, Watershed())) == {(60, 50, 2)}


@pytest.mark.parametrize("options", [{"min_area_px": 0}, {"distance_px": 0}])
def test_rules_outside_their_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Watershed(**options)
