"""What the slides' measurements are made of: slides drawn by hand, and agreement counted by hand."""

import numpy as np
import pytest
from slide_files import picture, tissue_picture

from benchmarks.slides.material import pair_as_slide, with_white, write_glass_slide, write_slide
from benchmarks.slides.placement import Cells, agreement, at_seams
from softctm.slides import open_slide


def test_a_slide_of_a_pair_holds_the_cell_patch_at_its_place(tmp_path):
    tissue, cell = picture(1024, 1024, 1), picture(1024, 1024, 2)
    image = pair_as_slide(tissue, cell, 300, 512)
    assert image.shape == (4096, 4096, 3)
    path = write_slide(tmp_path / "a.tif", image, 0.2, compression="zlib", compressionargs=None)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((0.2, 0.2))
        np.testing.assert_array_equal(slide.read(1200, 2048, 1024, 1024, 0.2), cell)
        far = slide.read(0, 0, 280, 500, 0.8).astype(int)
    assert np.abs(far - tissue[:500, :280]).mean() < 4  # enlarged and averaged
    moved = with_white(image, 7, 5)
    assert (moved[:5] == 255).all()
    np.testing.assert_array_equal(moved[5:, 7:], image)


def test_a_slide_of_glass_holds_its_piece_of_tissue(tmp_path):
    tissue = tissue_picture(900, 700)
    path = write_glass_slide(tmp_path / "glass.tif", 5000, 4000, tissue, (1600, 2080))
    with open_slide(path) as slide:
        assert (slide.width, slide.height) == (5000, 4000)
        window = slide.read(1600, 2080, 700, 900, 0.25).astype(int)
        assert np.abs(window - tissue).mean() < 6  # JPEG
        assert np.ptp(slide.read(0, 0, 1500, 2000, 0.25)) <= 2
        assert np.ptp(slide.read(3000, 3000, 1500, 900, 0.25)) <= 2


def test_agreement_counts_each_cell_once():
    base = Cells(np.array([(10.0, 10.0), (50.0, 50.0), (90.0, 90.0)]), np.array([True, False, True]))
    other = Cells(np.array([(11.0, 10.0), (10.5, 10.0), (50.0, 52.9), (90.0, 93.1)]), np.ones(4, np.bool_))
    found = agreement(base, other)
    assert found["same_place"] == pytest.approx(2 * 2 / 7)
    assert found["same_place_and_class"] == pytest.approx(2 * 1 / 7)
    assert agreement(base, base)["same_place_and_class"] == 1
    seams = at_seams(base.moved(170, 170), other.moved(170, 170))  # 180 µm lies near the seam at 179.2
    assert seams["near_seams"] == 1
    assert seams["found_again_near"] == 1
    assert seams["found_again_elsewhere"] == 0.5
    assert seams["class_changed_elsewhere"] == 1
