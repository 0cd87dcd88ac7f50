"""Nuclei from maps: against the CellViT authors' results, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import regionprops

from softctm.postprocessing.hover import classify_nuclei, separate_nuclei

POSTS = (0, 1, 2)


@pytest.fixture(params=POSTS)
def post(request, shared):
    return np.load(shared / f"reference/cellvit/post_{request.param}.npz")


def test_instances_of_reference(post):
    found = separate_nuclei(post["binary"], post["h"], post["v"], magnification=int(post["magnification"]))
    assert found.dtype == np.int32
    assert np.array_equal(found, post["instances"])


def test_table_of_reference(post):
    table, expected = classify_nuclei(post["instances"], post["types"]), post["nuclei"]
    assert np.array_equal(table.id, expected[:, 0])
    assert np.array_equal(table.type, expected[:, 1])
    np.testing.assert_allclose(table.type_probability, expected[:, 2], atol=1e-6)
    np.testing.assert_allclose(np.column_stack((table.x, table.y)), expected[:, 3:5], atol=1e-9)
    assert np.array_equal(table.box, expected[:, 5:9])


def test_touching_nuclei_are_separated_where_the_distances_jump():
    binary = np.zeros((40, 60), bool)
    binary[10:30, 10:50] = True
    h = np.zeros(binary.shape)
    h[:, 10:30] = np.linspace(-1, 1, 20)
    h[:, 30:50] = np.linspace(-1, 1, 20)
    v = np.zeros(binary.shape)
    v[10:30] = np.linspace(-1, 1, 20)[:, None]
    instances = separate_nuclei(binary, h * binary, v * binary, magnification=40)
    assert instances.max() == 2
    assert np.array_equal(instances > 0, binary)
    assert (instances[15, 12], instances[15, 47]) == (1, 2)


@pytest.mark.parametrize("value", [0, 1])
def test_maps_of_one_value(value):
    plane = np.full((32, 32), value)
    instances = separate_nuclei(plane, plane * 0.0, plane * 0.0, magnification=20)
    assert instances.max() <= 1
    assert len(classify_nuclei(instances, plane)) == instances.max()


def test_components_under_ten_pixels_are_dropped():
    binary = np.zeros((32, 32), np.uint8)
    binary[2:5, 2:5] = 1  # nine pixels
    zero = np.zeros(binary.shape, np.float32)
    assert separate_nuclei(binary, zero, zero, magnification=40).max() == 0


def test_background_gives_way_to_the_second_type():
    instances = np.zeros((4, 8), int)
    instances[:, :4], instances[:2, 5:7] = 3, 7
    types = np.zeros((4, 8), int)
    types[0, :4], types[1, :2] = 2, 1
    table = classify_nuclei(instances, types)
    assert table.id.tolist() == [3, 7]
    assert table.type.tolist() == [2, 0]  # the second holds nothing but background
    assert table.type_probability.tolist() == [4 / 16, 1]
    assert table.area_px.tolist() == [16, 4]


def test_equally_frequent_types_go_to_the_smaller_number():
    types = np.array([[5, 5, 0], [3, 3, 0]])
    assert classify_nuclei(np.array([[1, 1, 0], [1, 1, 0]]), types).type.tolist() == [3]


@pytest.mark.parametrize(
    ("rows", "stays"),
    [
        (["1"], False),
        (["1111"], False),
        (["1", "1"], False),
        (["100", "010", "001"], False),
        (["001", "010", "100"], False),
        (["11", "10"], True),
        (["111", "001", "001"], True),
        (["11", "11"], True),
        (["1100", "0110"], True),
    ],
)
def test_lines_have_no_outline(rows, stays):
    instances = np.pad(np.array([[int(digit) for digit in row] for row in rows]), 1)
    assert len(classify_nuclei(instances, instances)) == stays


@settings(max_examples=60, deadline=None)
@given(arrays(np.int32, (9, 11), elements=st.integers(0, 5)))
def test_positions_are_those_of_scikit_image(instances):
    table = classify_nuclei(instances, instances)
    expected = {region.label: region for region in regionprops(instances)}
    for i, number in enumerate(table.id.tolist()):
        region = expected[number]
        assert (table.y[i], table.x[i]) == pytest.approx(region.centroid)
        assert tuple(table.box[i]) == region.bbox
        assert table.area_px[i] == region.area
        assert table.type[i] == number


def test_wrong_arguments_are_named():
    plane = np.zeros((8, 8))
    with pytest.raises(ValueError, match="of one shape"):
        separate_nuclei(plane, plane[:4], plane, magnification=40)
    with pytest.raises(ValueError, match="magnification"):
        separate_nuclei(plane, plane, plane, magnification=10)
    with pytest.raises(ValueError, match="alike"):
        classify_nuclei(plane.astype(int), plane[:4].astype(int))
