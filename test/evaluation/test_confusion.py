from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_cases import BC, TC, cells, crowded_cells, literal_match
from hypothesis import given, settings

from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.confusion import confusion, pair_matrices
from softctm.evaluation.matching import CellTable, match_tables


def analyze(predicted, true):
    tables = CellTable.of(predicted), CellTable.of(true)
    matrices = pair_matrices(match_tables(*tables, same_class=False), *tables, len(true))
    return confusion(matrices, Bootstrap(len(true), 100))


@settings(deadline=None)
@given(crowded_cells(), crowded_cells())
def test_matrix_counts_every_cell_once(predicted, true):
    expected = np.zeros((3, 3), int)
    partner = literal_match(predicted, true, same_class=False)
    for i, j in enumerate(partner):
        expected[true.label[j] - 1 if j >= 0 else 2, predicted.label[i] - 1] += 1
    for j in set(range(len(true))) - set(partner):
        expected[true.label[j] - 1, 2] += 1
    assert (analyze([predicted], [true]).matrix == expected).all()


def test_figures_by_hand():
    true = [cells(*[(100 * i, 50, BC) for i in range(4)], *[(100 * i, 500, TC) for i in range(6)])]
    predicted = [
        cells(
            *[(100 * i, 51, BC) for i in range(3)],  # 3 BC found and named
            (300, 51, TC),  # 1 BC called TC
            *[(100 * i, 501, TC) for i in range(3)],  # 3 TC found and named
            *[(100 * i, 501, BC) for i in (3, 4)],  # 2 TC called BC, 1 TC not found
            (900, 900, BC),  # a false positive
        )
    ]
    result = analyze(predicted, true)
    assert result.matrix.tolist() == [[3, 1, 0], [2, 3, 1], [1, 0, 0]]
    value = {name: figure.value for name, figure in result.figures.items()}
    assert value["detection_precision"] == 9 / 10
    assert value["detection_recall"] == 9 / 10
    assert value["detection_f1"] == pytest.approx(9 / 10)
    assert value["class_accuracy"] == 6 / 9
    assert value["bc_called_tc"] == 1 / 4
    assert value["tc_called_bc"] == 2 / 5
    chance = (4 * 5 + 5 * 4) / 81
    assert value["kappa"] == pytest.approx((6 / 9 - chance) / (1 - chance))


def test_nothing_matched_has_no_class_figures():
    value = analyze([cells((5, 5, BC))], [cells((900, 900, TC))]).figures
    assert value["detection_f1"].value == 0.0
    assert math.isnan(value["class_accuracy"].value)
    assert math.isnan(value["kappa"].value)
