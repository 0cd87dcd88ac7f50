"""Measurements of nuclei, against scikit-image's region by region."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import regionprops

from softctm.postprocessing.hover import classify_nuclei
from softctm.postprocessing.nuclei_features import measure_nuclei


def assert_like_scikit_image(instances, mpp):
    table = classify_nuclei(instances, instances > 0)
    image = np.full((*instances.shape, 3), 200, np.uint8)
    found = measure_nuclei(image, instances, table, mpp=mpp)
    regions = {region.label: region for region in regionprops(instances)}
    for i, number in enumerate(table.id.tolist()):
        region = regions[number]
        assert found.area_um2[i] == pytest.approx(region.area * mpp**2)
        assert found.perimeter_um[i] == pytest.approx(region.perimeter * mpp)
        assert found.eccentricity[i] == pytest.approx(region.eccentricity, abs=1e-7)


@settings(max_examples=100, deadline=None)
@given(arrays(np.int32, (8, 12), elements=st.integers(0, 4)))
def test_any_map(instances):
    assert_like_scikit_image(instances, 1.0)


def test_reference_instances(shared):
    for number in range(3):
        instances = np.load(shared / f"reference/cellvit/post_{number}.npz")["instances"].astype(np.int32)
        assert_like_scikit_image(instances, 0.25)


def test_density_of_pure_hematoxylin():
    """A pixel whose optical density is c times the stain's vector has hematoxylin c, and no other."""
    stain = np.array([0.65, 0.70, 0.29])
    image = np.full((6, 6, 3), 255, np.uint8)
    image[1:3, 1:3] = np.round(255 * 10 ** -(0.5 * stain))
    image[1:3, 4:6] = np.round(255 * 10 ** -(1.0 * stain))
    instances = np.zeros((6, 6), np.int32)
    instances[1:3, 1:3], instances[1:3, 4:6] = 1, 2
    table = classify_nuclei(instances, instances)
    found = measure_nuclei(image, instances, table, mpp=0.25)
    np.testing.assert_allclose(found.hematoxylin_od, [0.5, 1.0], atol=0.01)


def test_of_a_choice_only():
    instances = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((3, 4), int)).astype(np.int32)
    table = classify_nuclei(instances, instances)
    image = np.random.default_rng(0).integers(0, 256, (*instances.shape, 3), dtype=np.uint8)
    every = measure_nuclei(image, instances, table, mpp=0.5)
    some = measure_nuclei(image, instances, table.where(np.array([1, 3])), mpp=0.5)
    np.testing.assert_array_equal(some.hematoxylin_od, every.hematoxylin_od[[1, 3]])
    np.testing.assert_array_equal(some.perimeter_um, every.perimeter_um[[1, 3]])


def test_wrong_arguments_are_named():
    instances = np.zeros((4, 4), np.int32)
    table = classify_nuclei(instances, instances)
    with pytest.raises(ValueError, match="image must be"):
        measure_nuclei(np.zeros((4, 5, 3), np.uint8), instances, table, mpp=0.25)
    with pytest.raises(ValueError, match="mpp"):
        measure_nuclei(np.zeros((4, 4, 3), np.uint8), instances, table, mpp=0)
