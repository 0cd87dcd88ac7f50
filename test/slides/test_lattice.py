"""Who owns what: every pixel and every cell has one field, wherever the slide ends."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from softctm.box import Box
from softctm.slides.lattice import CORE, CellLattice, TissueLattice, core_of


class Sized:
    """What a lattice needs of a slide, sizes at 0.8 µm."""

    def __init__(self, width, height):
        self.width, self.height = width, height

    def size_at(self, mpp):
        factor = {0.8: 1, 0.2: 4}[mpp]
        return self.width * factor, self.height * factor


sizes = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@settings(max_examples=60, deadline=None)
@given(size=sizes)
@example(size=(1024, 1024))
@example(size=(1025, 1536))
@example(size=(1537, 512))
def test_the_kept_parts_of_tissue_fields_tile_the_map(size):
    lattice = TissueLattice.of(Sized(*size))
    owner = np.full(size[::-1], -1)
    for row in range(lattice.rows):
        for column in range(lattice.columns):
            box, (x, y) = lattice.kept(column, row), lattice.corner(column, row)
            assert (owner[box.top : box.bottom, box.left : box.right] == -1).all()
            owner[box.top : box.bottom, box.left : box.right] = row * lattice.columns + column
            assert x <= box.left < box.right <= x + 1024
            assert y <= box.top < box.bottom <= y + 1024
            assert box.left == (x + 256 if column else 0)
            assert box.right == (size[0] if column == lattice.columns - 1 else x + 768)
    assert (owner >= 0).all()


@settings(max_examples=60, deadline=None)
@given(size=sizes, data=st.data())
def test_the_owners_of_a_box_are_those_that_keep_a_pixel_of_it(size, data):
    lattice = TissueLattice.of(Sized(*size))
    x, y = data.draw(st.integers(-300, size[0])), data.draw(st.integers(-300, size[1]))
    box = Box(x, y, x + data.draw(st.integers(1, 900)), y + data.draw(st.integers(1, 900)))

    def overlap(kept):
        return min(kept.right, box.right) > max(kept.left, box.left) and min(kept.bottom, box.bottom) > max(
            kept.top, box.top
        )

    expected = [
        (column, row)
        for row in range(lattice.rows)
        for column in range(lattice.columns)
        if overlap(lattice.kept(column, row))
    ]
    assert list(lattice.owners(box)) == expected


def test_a_pair_sized_slide_has_one_tissue_field():
    lattice = TissueLattice.of(Sized(1024, 1024))
    assert (lattice.columns, lattice.rows) == (1, 1)
    assert lattice.kept(0, 0) == Box(0, 0, 1024, 1024)


@given(size=sizes, data=st.data())
def test_each_pixel_lies_in_the_core_of_one_cell_field(size, data):
    lattice = CellLattice.of(Sized(*size))
    x, y = data.draw(st.integers(0, 4 * size[0] - 1)), data.draw(st.integers(0, 4 * size[1] - 1))
    (column,), (row,) = core_of(np.array([x], np.int32), np.array([y], np.int32))
    assert 0 <= column < lattice.columns
    assert 0 <= row < lattice.rows
    left, top = lattice.corner(int(column), int(row))
    assert 64 <= x - left < 64 + CORE
    assert 64 <= y - top < 64 + CORE


@pytest.mark.parametrize("field", [(0, 0), (3, 1), (17, 40)])
def test_the_context_is_the_quarter_of_the_field(field):
    x, y = CellLattice.corner(*field)
    assert CellLattice.context(*field) == Box(x // 4, y // 4, x // 4 + 256, y // 4 + 256)
