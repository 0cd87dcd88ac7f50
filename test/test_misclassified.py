"""Classes that contradict the annotation, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.misclassified import PairClasses, compare_classes, summary, tissue_agreement, weights_of
from softctm.points import CellPoints


def cells(*rows: tuple[int, int, int]) -> CellPoints:
    table = np.array(rows, np.int32).reshape(-1, 3)
    return CellPoints(table[:, 0], table[:, 1], table[:, 2].astype(np.uint8), np.ones(len(table), np.float32))


def test_found_cells_are_compared_with_the_nearest_annotated_one_within_reach() -> None:
    true = cells((100, 100, 1), (110, 100, 2), (500, 500, 2))
    # Nearer to the tumor cell; 15 px away, which still counts; 16 px away, which does not.
    found = cells((107, 100, 1), (500, 515, 2), (516, 500, 1))
    assert compare_classes(found, true) == (2, 1)
    assert compare_classes(found, cells()) == (0, 0)
    assert compare_classes(cells(), true) == (0, 0)


def test_the_annotated_tissue_agrees_with_tumor_cells_in_cancer_area() -> None:
    window = np.ones((256, 256), np.uint8)
    window[:, 128:] = 2
    window[200:] = 255
    # In the background: a background cell, a tumor cell. In cancer area: two tumor cells. One on unknown.
    true = cells((0, 0, 1), (511, 10, 2), (512, 10, 2), (1023, 799, 2), (10, 800, 2))
    assert tissue_agreement(true, window) == pytest.approx(3 / 4)
    assert math.isnan(tissue_agreement(cells((10, 900, 1)), window))
    assert math.isnan(tissue_agreement(cells(), window))


def test_pairs_are_doubtful_where_most_of_enough_cells_have_another_class() -> None:
    pairs = [
        PairClasses("001", "a", "kidney", 20, 11, 0.9),
        PairClasses("002", "a", "kidney", 20, 10, 0.1),
        PairClasses("003", "b", "bladder", 19, 19, 0.2),
        PairClasses("004", "b", "bladder", 40, 30, 0.2),
    ]
    assert [pair.is_doubtful for pair in pairs] == [True, False, False, True]
    first, second, third, *listed = summary(pairs).splitlines()
    assert first == "70 of 99 found cells are misclassified (0.707)"
    assert second == "2 of 4 pairs, of 2 patients, are doubtful and hold 0.59 of the misclassified cells"
    assert third == "in 1 of these pairs the annotated tissue agrees with most annotated cells"
    assert [line[:3] for line in listed] == ["004", "001"]


def test_nothing_found_is_nothing_misclassified() -> None:
    assert summary([PairClasses("001", "a", "kidney", 0, 0, math.nan)]).startswith("0 of 0 found cells")


def test_only_pairs_that_are_doubtful_under_every_model_get_a_weight() -> None:
    def pair(name: str, misclassified: int) -> PairClasses:
        return PairClasses(name, name, "kidney", 40, misclassified, 1.0)

    by_model = {
        "first": [pair("001", 30), pair("002", 30), pair("003", 0)],
        "second": [pair("001", 21), pair("002", 20), pair("003", 40)],
    }
    weights = weights_of(by_model, 0.25)
    assert weights.of_pair == {"001": 0.25}
    assert weights.rule.endswith("under first and second")
