"""Where tissue is: on drawn slides whose tissue is known."""

import numpy as np
import pytest
from slide_files import write_tiff

from softctm.slides import open_slide
from softctm.slides.mask import read_overview, tissue_mask


def glass(height=100, width=140, seed=0):
    random = np.random.default_rng(seed)
    return (242 + random.normal(0, 1.5, (height, width, 3))).clip(0, 255)


PINK = np.array((225, 165, 205.0))


def test_pink_is_tissue_and_glass_is_not():
    image = glass()
    image[20:70, 30:110] = PINK
    expected = np.zeros((100, 140), bool)
    expected[20:70, 30:110] = True
    np.testing.assert_array_equal(tissue_mask(image.astype(np.uint8)), expected)


def test_specks_and_holes_go_and_larger_ones_stay():
    image = glass()
    image[20:70, 30:110] = PINK
    image[30:33, 40:43] = image[40:50, 60:70] = 242
    image[5:8, 5:8] = PINK
    image[85:95, 5:15] = PINK
    mask = tissue_mask(image.astype(np.uint8))
    assert mask[31, 41]  # a small hole
    assert not mask[45, 65]  # a large one
    assert not mask[6, 6]  # a speck
    assert mask[90, 10]


@pytest.mark.parametrize("value", [255, 243, 0, 128])
def test_a_slide_without_color_has_no_tissue(value):
    assert not tissue_mask(np.full((60, 60, 3), value, np.uint8)).any()
    assert not tissue_mask(glass(seed=3).astype(np.uint8)).any()


def test_a_slide_without_glass_is_all_tissue():
    random = np.random.default_rng(1)
    image = np.where(random.random((80, 80, 1)) < 0.5, PINK, PINK * (0.8, 0.6, 0.8))
    assert tissue_mask(image.astype(np.uint8)).all()


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_a_small_image_may_be_all_tissue_or_all_glass(side):
    """A crop of a few cells has fewer pixels here than the smallest piece of tissue on a slide."""
    assert tissue_mask(np.full((side, side, 3), PINK, np.uint8)).all()
    assert not tissue_mask(np.full((side, side, 3), 243, np.uint8)).any()


def test_specks_of_a_small_image_go():
    image = np.full((5, 6, 3), 243, np.uint8)
    image[:2, :2] = PINK
    assert not tissue_mask(image).any()
    image[:3] = PINK
    assert tissue_mask(image)[:3].all()


def test_an_overview_is_the_slide_averaged(tmp_path):
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (1600, 2400, 3), np.uint8)
    with open_slide(write_tiff(tmp_path / "a.tif", [picture], mpp=0.5)) as slide:
        overview = read_overview(slide)
    assert overview.detail == 16  # 1.2 mm: seen at 1 µm
    assert overview.image.shape == (50 * 16, 75 * 16, 3)
    means = picture.reshape(800, 2, 1200, 2, 3).mean(axis=(1, 3))
    assert np.abs(overview.image - means).max() <= 0.51
    coarse = picture.reshape(50, 32, 75, 32, 3).mean(axis=(1, 3))
    assert np.abs(overview.at_mask() - coarse).max() <= 1
