from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from evaluation_cases import BC, TC, cells, document, write_json

from softctm.errors import InputError
from softctm.evaluation.predictions import FormatError, document_faults, load_predictions

GOOD = document([cells((1, 2, BC, 0.25), (1023, 0, TC, 1.0)), cells(), cells((7, 8, TC, 0.0))])


def test_points_come_back_by_pair_in_the_order_of_the_file(tmp_path):
    shuffled = copy.deepcopy(GOOD)
    shuffled["points"].reverse()
    pairs = load_predictions(write_json(tmp_path / "p.json", shuffled), 4)
    assert [len(points) for points in pairs] == [2, 0, 1, 0]
    assert pairs[0].x.tolist() == [1023, 1]
    assert pairs[0].label.tolist() == [TC, BC]
    assert pairs[0].score.tolist() == [1.0, 0.25]
    assert pairs[0].score.dtype == np.float32
    assert pairs[2].y.tolist() == [8]


def test_no_cells_is_a_valid_answer(tmp_path):
    pairs = load_predictions(write_json(tmp_path / "p.json", {**GOOD, "points": []}), 3)
    assert [len(points) for points in pairs] == [0, 0, 0]


def altered(key, value):
    changed = copy.deepcopy(GOOD)
    changed["points"][1][key] = value
    return changed


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (altered("point", [1.0, 2, 1]), "points[1]: x is 1.0, not an integer in 0 … 1023"),
        (altered("point", [1, 1024, 1]), "points[1]: y is 1024, not an integer in 0 … 1023"),
        (altered("point", [-1, 2, 1]), "points[1]: x is -1, not an integer"),
        (altered("point", [True, 2, 1]), "points[1]: x is true, not an integer"),
        (altered("point", [1, 2, 0]), "points[1]: class is 0, neither"),
        (altered("point", [1, 2, "2"]), 'points[1]: class is "2", neither'),
        (altered("point", [1, 2]), "points[1]: point is [1, 2], not a list"),
        (altered("point", {"x": 1}), 'points[1]: point is {"x": 1}, not a list'),
        (altered("probability", 1), "points[1]: probability is 1, not a float"),
        (altered("probability", 1.5), "points[1]: probability is 1.5, not a float in"),
        (altered("probability", float("nan")), "points[1]: probability is NaN, not a float"),
        (altered("probability", None), "points[1]: probability is null, not a float"),
        (altered("name", "image_3"), 'points[1]: name is "image_3", but there are 3 pairs'),
        (altered("name", "image_" + "9" * 5000), "but there are 3 pairs"),
        (altered("name", "image_1\n"), 'points[1]: name is "image_1\\n", not image_<number>'),
        (altered("name", "image_²"), "not image_<number>"),
        (altered("name", 0), "points[1]: name is 0, not image_<number>"),
        (altered("color", 0), 'points[1]: "color" does not belong there'),
        ({**GOOD, "points": [3]}, "points[0]: 3 is not an object"),
        ({**GOOD, "points": {}}, "points is {}, not a list"),
        ({**GOOD, "type": "Point"}, 'type is "Point", not "Multiple points"'),
        ({**GOOD, "version": {"major": 2, "minor": 0}}, 'version is {"major": 2, "minor": 0}'),
        ({key: GOOD[key] for key in ("type", "version")}, "points is missing"),
        ([GOOD], "the whole must be an object"),
    ],
)
def test_every_departure_from_the_form_is_named(changed, fault):
    faults = document_faults(changed, 3)
    assert len(faults) == 1
    assert fault in faults[0]


def test_a_missing_key_is_named():
    changed = copy.deepcopy(GOOD)
    del changed["points"][0]["probability"]
    assert document_faults(changed, 3) == ["points[0]: probability is missing"]


def test_every_fault_is_named_not_the_first(tmp_path):
    bad = {
        "type": "points",
        "points": [
            {"name": "image_9", "point": [5000, -3, 7], "probability": 2.0},
            {"name": "image_0", "point": [1, 1, 1], "probability": 0.5},
            {"nom": "image_0", "point": [1, 1, 1], "probability": 1},
        ],
    }
    with pytest.raises(FormatError) as caught:
        load_predictions(write_json(tmp_path / "bad.json", bad), 3)
    faults = caught.value.faults
    assert len(faults) == 10
    for part in (
        "type",
        "version",
        "[0]: x",
        "[0]: y",
        "[0]: class",
        "[0]: prob",
        "[0]: name",
        "name is missing",
    ):
        assert sum(part in fault for fault in faults) == 1, part
    assert "bad.json: 10 faults" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_challenges_own_files_are_fine(shared):
    for name in ("cell_classification.json", "cell_gt.json"):
        path = shared / "reference/evaluation" / name
        assert document_faults(json.loads(path.read_text()), 12) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_not_json_is_one_clear_line(tmp_path, content):
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"p\.json: ") as caught:
        load_predictions(path, 1)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        load_predictions(tmp_path / "nowhere.json", 1)
