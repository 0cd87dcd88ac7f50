"""A field's values are the same to the last bit on one processor and on two: workers may have either."""

from pathlib import Path

import numpy as np
from slide_files import tissue_picture

from softctm import load_detector
from softctm.ort import runtime

HAND_SET = Path(__file__).parents[1] / "hand_set"


def test_the_number_of_processors_does_not_change_a_bit(monkeypatch):
    image = tissue_picture(1024, 1024)
    results = []
    for processors in (1, 2):
        monkeypatch.setattr(runtime, "available_processors", lambda count=processors: count)
        detector = load_detector(HAND_SET, device="cpu", views=4)
        tissue = detector.tissue_map(image)
        cells = detector.find_cells(image, np.ascontiguousarray(tissue[:, :256, :256]))
        results.append((tissue, cells.probability, cells.height))
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
