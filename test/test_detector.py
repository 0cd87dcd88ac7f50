"""The detector as a whole: the authors' reference result, symmetry, determinism, bad networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from softctm import CellTissuePair, load_detector
from softctm.geometry import tissue_window
from softctm.pair import PATCH_SIZE


def reference_pairs(folder: Path) -> list[CellTissuePair]:
    """The three pairs of the reference input, each stream a stack of patches."""
    cells, tissues = (
        tifffile.imread(next((folder / f"input/images/{kind}_patches").iterdir())).reshape(
            -1, PATCH_SIZE, PATCH_SIZE, 3
        )
        for kind in ("cell", "tissue")
    )
    metadata = json.loads((folder / "input/metadata.json").read_text())
    return [
        CellTissuePair(cell, tissue, tissue_window(entry, f"{index}"), f"{index}")
        for index, (cell, tissue, entry) in enumerate(zip(cells, tissues, metadata, strict=True))
    ]


@pytest.mark.parametrize("weights", ["five_folds", "single_file"])
def test_gives_the_authors_points_classes_and_probabilities(shared: Path, weights: str) -> None:
    folder = shared / "reference/inference"
    document = json.loads((folder / "output/cell_classification.json").read_text())
    expected = {(point["name"], *point["point"]): point["probability"] for point in document["points"]}
    detector = load_detector(folder / weights, device="cpu")
    found = {
        (f"image_{index}", x, y, label): score
        for index, pair in enumerate(reference_pairs(folder))
        for points in [detector(pair)]
        for x, y, label, score in zip(
            points.x.tolist(), points.y.tolist(), points.label.tolist(), points.score.tolist(), strict=True
        )
    }
    assert found.keys() == expected.keys()
    assert len(document["points"]) == len(expected)
    assert max(abs(found[key] - expected[key]) for key in expected) < 1e-3
