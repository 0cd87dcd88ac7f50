"""Nuclei of overlapping fields: none twice, none lost, wherever the lattice lies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from softctm.box import Box
from softctm.postprocessing.field_lattice import Field, FieldLattice
from softctm.postprocessing.fields import FieldJoiner, FieldNuclei, join_fields
from softctm.postprocessing.hover import classify_nuclei
from softctm.postprocessing.label_overlap import label_overlap

SIZE, OVERLAP = 64, 24


def drawn_map(seed, width, height, radius=(2, 9)):
    """Discs that may touch but not overlap, each of one piece."""
    random = np.random.default_rng(seed)
    instances = np.zeros((height, width), np.int32)
    y, x = np.mgrid[:height, :width]
    for _ in range(width * height // 120):
        middle, r = random.uniform(0, (height, width)), random.uniform(*radius)
        disc = ((y - middle[0]) ** 2 + (x - middle[1]) ** 2 <= r**2) & (instances == 0)
        if ndimage.label(disc)[1] == 1 and disc.sum() > 6:
            instances[disc] = instances.max() + 1
    return instances


def seen_by(field, truth):
    """What a segmenter sees in a field: the truth's nuclei, cut off at its border, numbered anew."""
    left, top, right, bottom = field.box
    window = truth[top:bottom, left:right]
    labels = np.zeros(window.shape, np.int32)
    for number in np.unique(window)[1:]:
        pieces = ndimage.label(window == number)[0]
        labels += np.where(pieces > 0, pieces + labels.max(), 0)
    return FieldNuclei(field, labels, classify_nuclei(labels, (labels > 0) + (labels % 3)))


def same_partition(first, second):
    """Whether two maps differ in the numbers only."""
    overlap = label_overlap(first, second)
    return np.array_equal(first != 0, second != 0) and len(set(overlap.first.tolist())) == len(
        overlap.first
    ) == len(set(overlap.second.tolist()))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 150), st.integers(20, 150))
def test_as_if_seen_at_once(seed, width, height):
    truth = drawn_map(seed, width, height)
    whole = classify_nuclei(truth, truth > 0)
    truth = np.where(np.isin(truth, whole.id), truth, 0)
    fields = [seen_by(field, truth) for field in FieldLattice(width, height, size=SIZE, overlap=OVERLAP)]
    instances, table, source = join_fields(fields, width, height)
    assert same_partition(instances, truth)
    assert len(table) == len(whole)
    seen = np.concatenate([each.table.area_px for each in fields])
    np.testing.assert_array_equal(seen[source], table.area_px)
    order = label_overlap(truth, instances).second - 1  # their places, by the truth's numbers
    for name in ("x", "y", "area_px", "box"):
        np.testing.assert_allclose(getattr(table, name)[order], getattr(whole, name))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, SIZE), st.integers(0, SIZE))
def test_white_added_above_and_left_changes_nothing(seed, right, down):
    truth = drawn_map(seed, 100, 90)
    moved = np.pad(truth, ((down, 0), (right, 0)))
    joined = []
    for image in (truth, moved):
        height, width = image.shape
        lattice = FieldLattice(width, height, size=SIZE, overlap=OVERLAP)
        joined.append(join_fields([seen_by(field, image) for field in lattice], width, height)[0])
    assert same_partition(joined[0], joined[1][down:, right:])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_fields_that_disagree_give_no_nucleus_twice_and_lose_none(seed):
    """Each field erodes, dilates or keeps what it sees; of every true nucleus exactly one version stays."""
    random = np.random.default_rng(seed)
    width, height = 140, 120
    grid = np.zeros((height, width), np.int32)
    for number, (row, column) in enumerate(np.ndindex(7, 8)):
        top, left = row * 17 + random.integers(2, 5), column * 17 + random.integers(2, 5)
        grid[top : top + random.integers(8, 12), left : left + random.integers(8, 12)] = number + 1
    fields = []
    for field in FieldLattice(width, height, size=SIZE, overlap=OVERLAP):
        left, top, right, bottom = field.box
        window = grid[top:bottom, left:right]
        change = random.integers(3)
        if change == 1:
            window = np.where(ndimage.binary_erosion(window > 0, border_value=1), window, 0)
        elif change == 2:
            window = ndimage.grey_dilation(window, (3, 3))
        fields.append(FieldNuclei(field, window, classify_nuclei(window, window > 0)))
    instances, table, source = join_fields(fields, width, height)
    overlap = label_overlap(grid, instances)
    main = overlap.pixels > 20
    assert sorted(overlap.first[main].tolist()) == list(range(1, 57))
    assert len(table) == len(source) == 56
    assert instances.max() == 56


def rectangles(field, *corners):
    """A field's nuclei, as rectangles in image pixels: left, top, right, bottom."""
    labels = np.zeros((field.box.bottom - field.box.top, field.box.right - field.box.left), np.int32)
    for number, (left, top, right, bottom) in enumerate(corners):
        rows = slice(top - field.box.top, bottom - field.box.top)
        labels[rows, left - field.box.left : right - field.box.left] = number + 1
    return FieldNuclei(field, labels, classify_nuclei(labels, labels))


LEFT = Field(Box(0, 0, 60, 40), Box(0, 0, 50, 40))
RIGHT = Field(Box(40, 0, 100, 40), Box(50, 0, 100, 40))


def kept(*fields):
    joiner = FieldJoiner()
    for nuclei in fields:
        joiner.add(nuclei)
    return [part.tolist() for part in joiner.finish()]


def test_the_core_decides():
    box = (46, 10, 52, 16)  # center at 49, in the left core
    assert kept(rectangles(LEFT, box), rectangles(RIGHT, box)) == [[True], [False]]
    box = (47, 10, 53, 16)  # center exactly on the seam, which is the right one's
    assert kept(rectangles(LEFT, box), rectangles(RIGHT, box)) == [[False], [True]]


def test_both_own_their_version():
    wide, narrow = (44, 10, 55, 16), (46, 10, 56, 16)
    assert kept(rectangles(LEFT, wide), rectangles(RIGHT, narrow)) == [[True], [False]]


def test_neither_owns_its_version():
    assert kept(rectangles(LEFT, (46, 10, 55, 16)), rectangles(RIGHT, (44, 10, 55, 16))) == [[False], [True]]


def test_neighbors_that_share_a_few_pixels_both_stay():
    left, right = (40, 10, 50, 16), (49, 10, 59, 16)
    assert kept(rectangles(LEFT, left), rectangles(RIGHT, right)) == [[True], [True]]


def test_found_by_the_neighbor_only():
    assert kept(rectangles(LEFT, (52, 10, 58, 16)), rectangles(RIGHT)) == [[True], []]


def test_cut_off_is_left_to_the_neighbor():
    assert kept(rectangles(LEFT, (54, 10, 60, 16)), rectangles(RIGHT)) == [[False], []]
    assert kept(rectangles(LEFT, (54, 10, 60, 16)), rectangles(RIGHT, (54, 10, 66, 16))) == [[False], [True]]


def test_larger_than_the_overlap():
    """Both see a part; the larger part stays, not both, and not none."""
    assert kept(rectangles(LEFT, (35, 10, 60, 16)), rectangles(RIGHT, (40, 10, 70, 16))) == [[False], [True]]


def test_the_image_border_cuts_nothing_off():
    assert kept(rectangles(LEFT, (0, 0, 6, 6)), rectangles(RIGHT, (94, 34, 100, 40))) == [[True], [True]]


def test_one_blob_gives_way_to_two_whole_nuclei_of_the_core():
    blob, pair = (44, 10, 60, 16), [(44, 10, 51, 16), (53, 10, 60, 16)]
    assert kept(rectangles(LEFT, blob), rectangles(RIGHT, *pair)) == [[False], [True, True]]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(4, 90), st.integers(1, 20))
def test_cores_tile_the_image(width, height, size, half):
    overlap = min(2 * half, size // 2 // 2 * 2)
    times = np.zeros((height, width), int)
    for field in FieldLattice(width, height, size=size, overlap=overlap):
        times[field.core.top : field.core.bottom, field.core.left : field.core.right] += 1
        assert field.box.right - field.box.left <= size
    assert (times == 1).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_fields_that_show_a_part_are_found(width, height, data):
    lattice = FieldLattice(width, height, size=64, overlap=24)
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Box(left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    expected = [
        (column, row)
        for row in range(lattice.rows)
        for column in range(lattice.columns)
        if (field := lattice.field(column, row).box).left < box.right
        and field.right > box.left
        and field.top < box.bottom
        and field.bottom > box.top
    ]
    assert list(lattice.showing(box)) == expected
    x, y = lattice.core_borders()
    cores = [field.core for field in lattice]
    assert x.tolist() == [core.left for core in cores[: lattice.columns]] + [width]
    assert y.tolist() == [core.top for core in cores[:: lattice.columns]] + [height]


def test_images_of_one_field_and_of_none():
    assert len(FieldLattice(1024, 1024)) == 1
    assert len(FieldLattice(1025, 1024)) == 2
    assert FieldJoiner().finish() == []
    instances, table, source = join_fields([], 5, 4)
    assert instances.shape == (4, 5)
    assert len(table) == len(source) == 0


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="overlap"):
        FieldLattice(10, 10, size=64, overlap=33)
    with pytest.raises(ValueError, match="must lie in the box"):
        Field(Box(0, 0, 10, 10), Box(0, 0, 11, 10))
    with pytest.raises(ValueError, match="box's size"):
        FieldNuclei(
            LEFT, np.zeros((3, 3), np.int32), classify_nuclei(np.zeros((3, 3), int), np.zeros((3, 3), int))
        )
    with pytest.raises(ValueError, match="different shapes"):
        label_overlap(np.zeros((2, 2), int), np.zeros((2, 3), int))
