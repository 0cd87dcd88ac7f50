"""The benchmark's loop over masks agrees with the fast way, at five times its processor time or more."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.nuclei import drawn_field, looped_features, looped_outlines, looped_table
from softctm.postprocessing.hover import classify_nuclei, separate_nuclei
from softctm.postprocessing.nuclei_features import measure_nuclei
from softctm.postprocessing.outlines import outlines


def processor_seconds(call: Callable[[], object]) -> float:
    """Of the best of three calls: whatever else the machine does can only make the others slower."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)


@pytest.fixture(scope="module")
def field():
    binary, h, v, types = drawn_field(400, 512)
    return separate_nuclei(binary, h, v, magnification=40), types


def test_table(field):
    instances, types = field
    table, rows = classify_nuclei(instances, types), looped_table(instances, types)
    assert len(table) > 350
    for i, (number, kind, share, x, y, box) in enumerate(rows):
        assert (table.id[i], table.type[i]) == (number, kind)
        assert (table.type_probability[i], table.x[i], table.y[i]) == pytest.approx((share, x, y))
        assert tuple(table.box[i]) == box
    slow = processor_seconds(lambda: looped_table(*field))
    assert 5 * processor_seconds(lambda: classify_nuclei(*field)) < slow


def test_outlines(field):
    instances, types = field
    table, found = classify_nuclei(instances, types), outlines(instances)
    for polygon, expected in zip(found, looped_outlines(instances, table), strict=True):
        assert {tuple(corner) for corner in polygon} <= {tuple(c[::-1] - 0.5) for c in expected}
    slow = processor_seconds(lambda: looped_outlines(instances, table))
    assert 5 * processor_seconds(lambda: outlines(instances)) < slow


def test_features(field):
    instances, types = field
    table = classify_nuclei(instances, types)
    image = np.random.default_rng(0).integers(0, 256, (*instances.shape, 3), dtype=np.uint8)
    found = measure_nuclei(image, instances, table, mpp=1.0)
    columns = np.column_stack((found.area_um2, found.perimeter_um, found.eccentricity, found.hematoxylin_od))
    expected = np.array(looped_features(image, instances, table)) * (1, 1, 1, 6)
    np.testing.assert_allclose(columns, expected, atol=1e-6)
