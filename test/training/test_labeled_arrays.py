"""Labeled images of any size as patches: scale, covering, mosaics, unknown classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softctm.datasets.labeled_images import CellImage, LabeledCells, TissueImage
from softctm.errors import InputError
from softctm.training.config import TargetConfig
from softctm.training.labeled_arrays import load_labeled_cells, load_labeled_tissue
from softctm.training.segmenters import ClassicalSegmenter

CIRCLES = TargetConfig("circle", circle_radius_um=1.4)


def picture(path: Path, height: int, width: int, value: int = 128) -> Path:
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path)
    return path


def cells(tmp_path: Path, side: int, mpp: float, *rows: tuple[float, float, int]) -> CellImage:
    table = np.array(rows).reshape(-1, 3)
    loaded = LabeledCells(table[:, 0], table[:, 1], table[:, 2].astype(np.uint8))
    return CellImage("a", picture(tmp_path / "a.png", side, side), mpp, (), lambda: loaded)


def tissue(tmp_path: Path, name: str, height: int, width: int, label: int, value: int = 128) -> TissueImage:
    path = picture(tmp_path / f"{name}.png", height, width, value)
    return TissueImage(name, path, 0.8, (), lambda: np.full((height, width), label, np.uint8))


def test_cells_land_where_their_image_is_enlarged_to(tmp_path: Path) -> None:
    # 512 px of 0.4 mpp are a patch of 1024 at 0.2, which is stored at an eighth: 128.
    image = cells(tmp_path, 512, 0.4, (100.5, 300.5, 1), (400.5, 20.5, 2), (250.5, 250.5, 0))
    arrays = load_labeled_cells([image], 8, CIRCLES, ClassicalSegmenter(), tmp_path, 0)
    assert arrays.images.shape == (1, 3, 128, 128)
    assert arrays.targets.shape == (1, 3, 128, 128)
    for plane, (x, y) in enumerate(((100.5, 300.5), (400.5, 20.5), (250.5, 250.5))):
        rows, columns = np.nonzero(arrays.targets[0, plane])
        center = np.average(
            np.stack([columns, rows]), axis=1, weights=arrays.targets[0, plane, rows, columns]
        )
        np.testing.assert_allclose((center + 0.5) * 4, (x, y), atol=1.5)
    # Discs of 7 px radius: 149 pixels each, of which the cell of unknown class is not counted.
    np.testing.assert_allclose(arrays.counts, [[149 / 64, 149 / 64]], rtol=0.05)


def test_nuclei_of_an_image_replace_the_segmenters(tmp_path: Path) -> None:
    masks = np.zeros((512, 512), np.int32)
    masks[100:120, 200:230] = 1
    loaded = LabeledCells(np.array([215.0]), np.array([110.0]), np.array([2], np.uint8), masks)
    image = CellImage("a", picture(tmp_path / "a.png", 512, 512), 0.4, (), lambda: loaded)
    target = TargetConfig("hard", loss="generalized-dice")
    arrays = load_labeled_cells([image], 2, target, ClassicalSegmenter(), tmp_path, 0)
    expected = np.zeros((512, 512))
    expected[100:120, 200:230] = 255
    np.testing.assert_array_equal(arrays.targets[0, 1], expected)
    assert not arrays.targets[0, [0, 2]].any()


def test_large_images_are_covered_by_overlapping_patches(tmp_path: Path) -> None:
    # 1400 × 1024 px: two patches, the second begins at 376 and is not padded.
    image = tissue(tmp_path, "a", 1024, 1400, 2)
    arrays = load_labeled_tissue([image], 8, tmp_path, 0)
    assert arrays.images.shape == (2, 3, 128, 128)
    assert (arrays.images == 128).all()
    assert (arrays.targets == 1).all()


def test_small_images_share_a_mosaic_and_gaps_are_unknown(tmp_path: Path) -> None:
    # Three of 400 × 600: two beside each other (the second cut), the third below; 224 rows are left.
    images = [
        tissue(tmp_path, name, 400, 600, label, 50 + label)
        for name, label in zip("abc", (1, 2, 2), strict=True)
    ]
    arrays = load_labeled_tissue(images, 8, tmp_path, 0)
    assert arrays.targets.shape == (1, 128, 128)
    assert (arrays.targets[0, 100:] == -1).all()
    assert (arrays.images[0][:, 100:] == 255).all()
    assert (arrays.targets[0, 50:100, 75:] == -1).all()
    # Each place shows the image that its label is of.
    np.testing.assert_array_equal(arrays.images[0, 0] == 51, arrays.targets[0] == 0)
    np.testing.assert_array_equal(arrays.images[0, 0] == 52, arrays.targets[0] == 1)
    assert (arrays.targets == 0).any()


def test_unknown_tissue_is_ignored(tmp_path: Path) -> None:
    arrays = load_labeled_tissue([tissue(tmp_path, "a", 1024, 1024, 255)], 8, tmp_path, 0)
    assert (arrays.targets == -1).all()
    np.testing.assert_array_equal(arrays.counts, [[0, 0]])


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    image = tissue(tmp_path, "a", 64, 64, 1)
    image.image.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a\.png: cannot be read as an image"):
        load_labeled_tissue([image], 8, tmp_path, 0)
