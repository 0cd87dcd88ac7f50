"""Files for other programs, read back independently."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softctm.errors import OutputError
from softctm.evaluation.tissue import read_tissue_map
from softctm.inference.detector import Prediction
from softctm.pair import CellTissuePair, TissueWindow
from softctm.points import CellPoints
from softctm.writers.viewers import FORMATS, geojson, overlay, table, tissue, write_for_viewers

WHITE = np.full((1024, 1024, 3), 255, np.uint8)
PAIR = CellTissuePair(WHITE, WHITE, TissueWindow(0, 0), "A 17")
CELLS = CellPoints(
    np.array([100, 0, 1023], np.int32),
    np.array([200, 500, 1023], np.int32),
    np.array([2, 1, 1], np.uint8),
    np.array([0.1, 0.75, 1.0], np.float32),
)
TISSUE = np.stack([np.full((1024, 1024), 0.4), np.tile(np.linspace(0, 1, 1024), (1024, 1))]).astype(
    np.float32
)
FOUND = Prediction(CELLS, TISSUE)
NOTHING = Prediction(CellPoints.empty(), TISSUE)


def test_geojson() -> None:
    document = json.loads(geojson(PAIR, FOUND))
    assert document["type"] == "FeatureCollection"
    assert [f["geometry"] for f in document["features"]] == [
        {"type": "Point", "coordinates": place} for place in ([100.5, 200.5], [0.5, 500.5], [1023.5, 1023.5])
    ]
    first = document["features"][0]["properties"]
    assert first["classification"]["name"] == "Tumor cell"
    assert first["measurements"] == {"Probability": 0.1}


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(table(PAIR, FOUND).decode())))
    assert rows[0] == {"x": "100", "y": "200", "class": "TC", "probability": "0.1"}
    assert [row["class"] for row in rows] == ["TC", "BC", "BC"]
    assert table(PAIR, NOTHING) == b"x,y,class,probability\n"


def test_overlay_marks_cells_and_nothing_else() -> None:
    image = np.asarray(Image.open(io.BytesIO(overlay(PAIR, FOUND))))
    assert image.shape == (1024, 1024, 3)
    changed = (image != 255).any(-1)
    near = np.zeros_like(changed)
    for x, y in ((100, 200), (0, 500), (1023, 1023)):
        region = np.s_[max(0, y - 12) : y + 13, max(0, x - 12) : x + 13]
        near[region] = True
        assert changed[region].any()
    assert not changed[~near].any()
    # Tumor cells are circles, background cells squares: only those reach the corner of their frame.
    assert not changed[200 - 9, 100 - 9]
    assert changed[500 - 9, 0 + 9]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(overlay(PAIR, NOTHING)))), WHITE)


def test_tissue_map_is_what_the_evaluation_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(tissue(PAIR, FOUND))
    labels = read_tissue_map(path)
    # The likelier class left and right of where the rising probability of cancer passes 0.4.
    assert np.array_equal(np.unique(labels[:, :409]), [1])
    assert np.array_equal(np.unique(labels[:, 410:]), [2])


def test_files_are_named_after_the_pair(tmp_path: Path) -> None:
    for name in FORMATS:
        write_for_viewers(tmp_path, name, PAIR, FOUND)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert files == {
        "geojson/A 17.geojson",
        "csv/A 17.csv",
        "overlay/A 17.png",
        "overview/A 17.png",
        "tissue/A 17.png",
    }


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "csv").touch()
    with pytest.raises(OutputError, match="csv cannot be written to"):
        write_for_viewers(tmp_path, "csv", PAIR, FOUND)
