from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_cases import BC, TC, cells, imperfect, random_cells, write_release

from softctm.evaluation.bootstrap import Bootstrap
from softctm.evaluation.matching import CellTable, match_tables
from softctm.evaluation.scores import count_pairs, score
from softctm.evaluation.subgroups import by_organ, by_region, cell_regions
from softctm.evaluation.truth import load_truth


def regions_of(tmp_path, predicted, true):
    truth = load_truth(write_release(tmp_path, true))
    tables = CellTable.of(predicted), CellTable.of(truth.points)
    found = cell_regions(*tables, truth)
    return by_region(match_tables(*tables), *tables, found, Bootstrap(len(true), 200)), found


def test_organs_are_scored_by_their_own_pairs():
    random = np.random.default_rng(0)
    true = [random_cells(random, 60) for _ in range(6)]
    counts = count_pairs([imperfect(random, points) for points in true], true)
    organs = ["lung", "liver", "lung", None, "liver", "lung"]
    groups = {group.name: group for group in by_organ(counts, organs, Bootstrap(6, 500))}
    assert list(groups) == ["liver", "lung"]
    for name, rows in (("lung", [0, 2, 5]), ("liver", [1, 4])):
        expected = score(counts[rows])
        assert groups[name].pairs == len(rows)
        assert {key: f.value for key, f in groups[name].figures.items()} == pytest.approx(expected.unrounded)
        assert groups[name].true == {
            "BC": int(expected.counts[0, [0, 2]].sum()),
            "TC": int(expected.counts[1, [0, 2]].sum()),
        }
        assert all(f.low <= f.value <= f.high for f in groups[name].figures.values())


def test_an_organ_without_tumor_cells_has_no_tumor_score():
    counts = count_pairs([cells((1, 1, BC))], [cells((1, 1, BC))])
    (group,) = by_organ(counts, ["liver"], Bootstrap(1, 20))
    assert group.figures["f1_bc"].value == 1.0
    assert math.isnan(group.figures["f1_tc"].value)
    assert math.isnan(group.figures["mean_f1"].value)


def test_the_tissue_under_a_cell(tmp_path):
    # cancer area up to x = 399, background up to 799, unknown beyond: see write_release
    true = [cells((0, 0, TC), (399, 1023, TC), (400, 0, TC), (799, 5, BC), (800, 5, BC), (1023, 1023, BC))]
    _, found = regions_of(tmp_path, [cells((399, 7, BC), (400, 7, BC))], true)
    assert found.true.tolist() == [2, 2, 1, 1, 255, 255]
    assert found.predicted.tolist() == [2, 1]


def test_the_window_decides_where_the_tissue_is_read(tmp_path):
    truth = load_truth(write_release(tmp_path, [cells((0, 0, BC))]))
    from PIL import Image

    tissue = np.full((1024, 1024), 255, np.uint8)
    tissue[300, 100] = 2  # row y₀ = 300, column x₀ = 100
    Image.fromarray(tissue).save(truth.pairs[0].annotated.tissue_png)
    table = CellTable.of([cells((3, 3, BC), (4, 3, BC), (3, 4, BC))])
    assert cell_regions(table, table, truth).true.tolist() == [2, 255, 255]


def test_regions_by_hand(tmp_path):
    true = [cells((50, 50, TC), (50, 200, TC), (600, 50, TC), (600, 300, BC), (900, 50, TC))]
    predicted = [
        cells(
            (52, 50, TC),
            (60, 400, TC),
            (602, 50, BC),
            (600, 301, BC),
            (500, 500, TC),
            (900, 51, TC),
            (990, 9, BC),
        )
    ]
    (cancer, background), _ = regions_of(tmp_path, predicted, true)
    assert (cancer.name, background.name) == ("cancer area", "background")
    assert cancer.true == {"BC": 0, "TC": 2}
    assert cancer.predicted == {"BC": 0, "TC": 2}
    assert background.true == {"BC": 1, "TC": 1}
    assert background.predicted == {"BC": 2, "TC": 1}
    value = {name: figure.value for name, figure in cancer.figures.items()}
    assert (value["precision_tc"], value["recall_tc"], value["f1_tc"]) == (0.5, 0.5, 0.5)
    assert math.isnan(value["f1_bc"])
    value = {name: figure.value for name, figure in background.figures.items()}
    assert (value["precision_bc"], value["recall_bc"]) == (0.5, 1.0)
    assert value["f1_bc"] == pytest.approx(2 / 3)
    assert (value["precision_tc"], value["recall_tc"], value["f1_tc"]) == (0.0, 0.0, 0.0)


def test_a_tp_across_the_border_counts_on_both_sides(tmp_path):
    (cancer, background), _ = regions_of(tmp_path, [cells((395, 50, TC))], [cells((405, 50, TC))])
    assert cancer.figures["precision_tc"].value == 1.0
    assert background.figures["recall_tc"].value == 1.0
    assert math.isnan(cancer.figures["recall_tc"].value)


def test_predictions_where_there_are_no_cells_score_zero(tmp_path):
    (cancer, _), _ = regions_of(tmp_path, [cells((5, 5, BC))], [cells()])
    assert cancer.figures["precision_bc"].value == 0.0
    assert cancer.figures["f1_bc"].value == 0.0
    assert math.isnan(cancer.figures["recall_bc"].value)
