"""What holds for every file that `--also` can write."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softctm.inference.detector import Prediction
from softctm.pair import CellTissuePair, TissueWindow
from softctm.points import CellPoints
from softctm.writers.viewers import FORMATS, write_for_viewers

GRAY = np.full((1024, 1024, 3), 128, np.uint8)
MAPS = (np.full((2, 1024, 1024), 0.5, np.float32), np.full((3, 1024, 1024), 1 / 3, np.float32))
CELLS = CellPoints(
    np.array([0, 1023], np.int32),
    np.array([5, 1023], np.int32),
    np.array([1, 2], np.uint8),
    np.array([0.25, 1.0], np.float32),
)


def write(folder: Path, name: str, points: CellPoints, pair_name: str = "pair 1") -> Path:
    pair = CellTissuePair(GRAY, GRAY, TissueWindow(768, 0), pair_name)
    write_for_viewers(folder, name, pair, Prediction(points, *MAPS))
    (file,) = (path for path in (folder / name).iterdir() if path.is_file())
    return file


@pytest.mark.parametrize("points", [CELLS, CellPoints.empty()], ids=["cells", "none"])
@pytest.mark.parametrize("name", FORMATS)
def test_it_is_one_file_a_pair_that_its_readers_open(tmp_path: Path, name: str, points: CellPoints) -> None:
    file = write(tmp_path, name, points)
    assert file.stem == "pair 1"
    content = file.read_bytes()
    if file.suffix == ".png":
        assert Image.open(io.BytesIO(content)).size >= (1024, 1024)
    elif file.suffix == ".csv":
        assert len(list(csv.DictReader(io.StringIO(content.decode())))) == len(points)
    elif file.suffix == ".geojson":
        assert len(json.loads(content)["features"]) == len(points)
    else:
        pytest.fail(f"no reader for {file.suffix} in this test")
    assert write(tmp_path / "again", name, points).read_bytes() == content


@pytest.mark.parametrize("name", FORMATS)
def test_names_with_spaces_and_letters_of_any_script_are_kept(tmp_path: Path, name: str) -> None:
    assert write(tmp_path, name, CELLS, "腫瘍 é.1").name.startswith("腫瘍 é.1.")
