"""The challenge's JSON: its exact shape, against its schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np

from softctm.points import CellPoints
from softctm.writers import points_document

SCHEMA = Path(__file__).resolve().parents[1] / "schema" / "multiple-points.schema.json"


def some_points(seed: int, count: int) -> CellPoints:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 1024, (2, count), np.int32)
    return CellPoints(x, y, rng.integers(1, 3, count, np.uint8), rng.random(count, np.float32))


def test_exact_shape() -> None:
    points = CellPoints(
        np.array([128, 7], np.int32),
        np.array([620, 0], np.int32),
        np.array([1, 2], np.uint8),
        np.array([1, 0.1], np.float32),
    )
    assert points_document([points, None, CellPoints.empty(), points]) == {
        "type": "Multiple points",
        "version": {"major": 1, "minor": 0},
        "points": [
            {"name": "image_0", "point": [128, 620, 1], "probability": 1.0},
            {"name": "image_0", "point": [7, 0, 2], "probability": 0.1},
            {"name": "image_3", "point": [128, 620, 1], "probability": 1.0},
            {"name": "image_3", "point": [7, 0, 2], "probability": 0.1},
        ],
    }


def test_no_cells_is_an_empty_list() -> None:
    assert points_document([CellPoints.empty()])["points"] == []


def test_probabilities_read_back_as_the_same_float32() -> None:
    points = some_points(1, 5000)
    document = json.loads(json.dumps(points_document([points])))
    back = np.array([p["probability"] for p in document["points"]]).astype(np.float32)
    assert np.array_equal(back, points.score)


def test_schema_of_the_platform() -> None:
    document = points_document([some_points(2, 50), None, some_points(3, 50)])
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
