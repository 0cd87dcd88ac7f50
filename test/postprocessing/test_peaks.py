"""The peak finder against scikit-image's peak_local_max and SciPy's blur, and its own promises."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max

from softctm.ort.graphs import Graph
from softctm.points import CellPoints
from softctm.postprocessing.methods import find_cells
from softctm.postprocessing.peaks import Peaks, _blur, cells_from_candidates, gaussian_kernel

Map = NDArray[np.float32]


def blurred(foreground: Map, sigma: float) -> Map:
    """The detector's own blur, so that the search can be compared on exactly the same values."""
    graph = Graph()
    plane = graph.input("plane", np.float32, (1, 1, "h", "w"))
    model = graph.model(_blur(graph, plane, gaussian_kernel(sigma)))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"plane": foreground[None, None]})[0][0, 0]


def by_scikit_image(probability: Map, rule: Peaks) -> set[tuple[int, int, int]]:
    """The same rule with scikit-image's search: cells as (x, y, class)."""
    smooth = blurred(1 - probability[0], rule.sigma_px)
    none, background, tumor = probability
    if rule.threshold is None:
        keep, floor = none < np.maximum(background, tumor), 0.0
    else:
        keep, floor = np.ones(none.shape, bool), rule.threshold
    candidates = ndimage.maximum_filter(smooth, 2 * rule.distance_px + 1, mode="nearest") == smooth
    if candidates.all():
        return set()
    # Ties are resolved among what the class test leaves: other values are lowered out of the search.
    found = peak_local_max(
        np.where(keep | ~candidates, smooth, np.float32(-1)),
        min_distance=rule.distance_px,
        threshold_abs=floor,
        exclude_border=False,
    )
    found = [(row, column) for row, column in found.tolist() if keep[row, column] and candidates[row, column]]
    return {(column, row, 2 if tumor[row, column] > background[row, column] else 1) for row, column in found}


def as_set(points: CellPoints) -> set[tuple[int, int, int]]:
    cells = set(zip(points.x.tolist(), points.y.tolist(), points.label.tolist(), strict=True))
    assert len(cells) == len(points)
    return cells


def random_map(seed: int, shape: tuple[int, int], levels: int | None, patches: int) -> Map:
    """Three probabilities that sum to 1, quantized to a few levels or with plateaus where asked."""
    random = np.random.default_rng(seed)
    logits = ndimage.gaussian_filter(random.normal(0, 1, (3, *shape)), (0, 2, 2)) * 12
    probability = np.exp(logits) / np.exp(logits).sum(axis=0)
    for _ in range(patches):
        top, left = random.integers(0, shape[0]), random.integers(0, shape[1])
        area = np.s_[:, top : top + random.integers(1, 60), left : left + random.integers(1, 60)]
        probability[area] = random.dirichlet([1, 1, 1]).reshape(3, 1, 1)
    if levels:
        probability = np.round(probability * levels) / levels
    return probability.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    levels=st.sampled_from([None, 1, 2, 5]),
    patches=st.integers(0, 4),
    rule=st.builds(
        Peaks,
        sigma_px=st.sampled_from([0.5, 1.0, 3.0]),
        distance_px=st.sampled_from([1, 2, 3, 5]),
        threshold=st.sampled_from([None, 0.0, 0.3, 0.6]),
    ),
)
def test_finds_what_scikit_image_finds(
    seed: int, shape: tuple[int, int], levels: int | None, patches: int, rule: Peaks
) -> None:
    probability = random_map(seed, shape, levels, patches)
    points = find_cells(probability, rule)
    assert as_set(points) == by_scikit_image(probability, rule)
    np.testing.assert_array_equal(points.score, probability[points.label, points.y, points.x])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 6]), st.sampled_from([None, 0.2]))
def test_points_are_never_closer_than_the_rule_allows(
    seed: int, distance: int, threshold: float | None
) -> None:
    points = find_cells(random_map(seed, (64, 80), 2, 3), Peaks(1.0, distance, threshold))
    apart = np.maximum(np.abs(points.x[:, None] - points.x[None]), np.abs(points.y[:, None] - points.y[None]))
    assert (apart[~np.eye(len(points), dtype=bool)] >= distance).all()


def test_blur_is_scipys_with_a_mirrored_border_and_25_pixels_for_sigma_three() -> None:
    plane = np.random.default_rng(0).random((70, 90), np.float32)
    assert len(gaussian_kernel(3.0)) == 25
    for sigma in (1.0, 2.0, 3.0):
        expected = ndimage.gaussian_filter(plane.astype(np.float64), sigma, mode="mirror", truncate=4.0)
        np.testing.assert_allclose(blurred(plane, sigma), expected, atol=1e-6)


def test_blur_keeps_plateaus_to_the_last_bit() -> None:
    plane = np.full((128, 131), 0.7310586, np.float32)
    assert np.ptp(blurred(plane, 3.0)) == 0


def test_a_single_blob_gives_its_center_class_and_probability() -> None:
    rows, columns = np.mgrid[:64, :64]
    blob = np.exp(-((rows - 20) ** 2 + (columns - 41) ** 2) / 18).astype(np.float32)
    points = find_cells(np.stack([1 - blob, 0.2 * blob, 0.8 * blob]), Peaks())
    assert as_set(points) == {(41, 20, 2)}
    np.testing.assert_allclose(points.score, [0.8], atol=1e-6)


def test_equal_classes_give_a_background_cell_and_scores_are_clipped() -> None:
    rows, columns = np.mgrid[:64, :64]
    blob = np.exp(-((rows - 30) ** 2 + (columns - 30) ** 2) / 18).astype(np.float32)
    equal = find_cells(np.stack([1 - blob, 0.5 * blob + 0.1, 0.5 * blob + 0.1]), Peaks())
    assert equal.label.tolist() == [1]
    assert find_cells(np.stack([1 - blob, 0 * blob, 1.5 * blob]), Peaks()).score.tolist() == [1.0]


def test_a_peak_in_the_border_counts() -> None:
    rows, columns = np.mgrid[:64, :64]
    blob = np.exp(-(rows**2 + (columns - 63) ** 2) / 18).astype(np.float32)
    assert as_set(find_cells(np.stack([1 - blob, blob, 0 * blob]), Peaks())) == {(63, 0, 1)}


def test_threshold_replaces_the_test_on_the_unblurred_map() -> None:
    rows, columns = np.mgrid[:64, :64]
    blob = 0.4 * np.exp(-((rows - 30) ** 2 + (columns - 30) ** 2) / 200).astype(np.float32)
    probability = np.stack([1 - blob, 0 * blob, blob])
    height = float(blurred(1 - probability[0], 3.0).max())
    assert len(find_cells(probability, Peaks())) == 0
    assert as_set(find_cells(probability, Peaks(threshold=height - 1e-4))) == {(30, 30, 2)}
    assert len(find_cells(probability, Peaks(threshold=height))) == 0


def test_of_equal_neighbors_the_first_in_row_major_order_stays() -> None:
    rows = np.array([0, 0, 0, 1, 2, 3])
    columns = np.array([0, 2, 3, 1, 4, 0])
    probability = np.tile(np.float32([0, 0.2, 0.8]), (6, 1))
    points = cells_from_candidates(np.stack([rows, columns]), probability, 1 - probability[:, 0], 3).points
    # (row 0, column 0) rules out its neighbors up to 2 away; exactly 3 apart both stay.
    assert list(zip(points.y.tolist(), points.x.tolist(), strict=True)) == [(0, 0), (0, 3), (3, 0)]


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_map_equal_everywhere_has_no_peaks(value: float) -> None:
    probability = np.empty((3, 64, 64), np.float32)
    probability[:] = np.float32([1 - value, value / 4, value])[:, None, None]
    assert len(find_cells(probability, Peaks(threshold=0.0))) == 0


def test_worst_case_is_quick() -> None:
    # Saturated but for a corner: nearly every pixel equals its neighborhood's maximum.
    probability = np.zeros((3, 1024, 1024), np.float32)
    probability[2] = 1
    probability[:, :20, :20] = np.float32([1, 0, 0])[:, None, None]
    find_cells(probability[:, :64, :64], Peaks())
    start = time.process_time()
    points = find_cells(probability, Peaks())
    assert time.process_time() - start < 1.0
    assert len(points) > 100_000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    probability = np.zeros((3, 64, 64), np.float32)
    probability[1, 5, 5] = bad
    with pytest.raises(ValueError, match="finite"):
        find_cells(probability, Peaks())


@pytest.mark.parametrize(
    "options",
    [{"sigma_px": 0}, {"sigma_px": -1}, {"distance_px": 0}, {"threshold": 1.0}, {"threshold": -0.1}],
)
def test_rules_outside_their_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Peaks(**options)
