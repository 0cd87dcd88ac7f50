"""Datasets of single images: small made files, what is read from them, and what is wrong said by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from softctm.datasets.dataset_images import read_rgb
from softctm.datasets.image_registry import IMAGE_DATASETS, load_images
from softctm.datasets.labeled_images import CellImage, TissueImage
from softctm.errors import InputError, UsageError


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def picture() -> np.ndarray:
    return np.full((6, 8, 3), 200, np.uint8)


@pytest.fixture
def nuclei() -> np.ndarray:
    """Two nuclei, numbered 7 and 3: 2 × 2 pixels at the upper left, 1 × 2 at the lower right."""
    masks = np.zeros((6, 8), np.uint16)
    masks[:2, :2] = 7
    masks[5, 6:] = 3
    return masks


@pytest.fixture
def consep(tmp_path: Path, picture: np.ndarray, nuclei: np.ndarray) -> Path:
    write_image(tmp_path / "images/a.jpg", picture)
    write_image(tmp_path / "instances/a.png", nuclei)
    write_text(tmp_path / "types/a.csv", "id,type\n7,malignant_epithelial\n3,fibroblast\n")
    return tmp_path


@pytest.fixture
def crchisto(tmp_path: Path, picture: np.ndarray) -> Path:
    write_image(tmp_path / "images/a.jpg", picture)
    write_text(tmp_path / "points/a.csv", "x,y,label,class\n1.5,2.0,2,epithelial\n7.9,5.5,0,others\n")
    return tmp_path


@pytest.fixture
def glands(tmp_path: Path, picture: np.ndarray) -> Path:
    """Two images with the same gland, as files of GlaS and of EBHI-Seg."""
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4] = 1
    for name in ("bad", "good"):
        write_image(tmp_path / f"images/{name}.jpg", picture)
        write_image(tmp_path / f"masks/{name}.png", mask)
    write_text(tmp_path / "grade.csv", "name,patient,glas_grade\nbad,1,malignant\ngood,2,benign\n")
    write_text(tmp_path / "index.csv", "name,class\nbad,adenocarcinoma\ngood,polyp\n")
    return tmp_path


def test_types_of_consep_become_ocelots_classes_and_masks_are_numbered_anew(consep: Path) -> None:
    (image,) = load_images("consep", consep)
    assert isinstance(image, CellImage)
    cells = image.load()
    # Sorted by number in the file: 3 first. The center of a pixel is at + 0.5.
    np.testing.assert_allclose(cells.x, [7.0, 1.0])
    np.testing.assert_allclose(cells.y, [5.5, 1.0])
    np.testing.assert_array_equal(cells.label, [1, 2])
    assert cells.nuclei is not None
    assert cells.nuclei[5, 7] == 1
    assert cells.nuclei[0, 0] == 2
    assert np.count_nonzero(cells.nuclei) == 6


def test_cells_of_monuseg_have_no_class(consep: Path) -> None:
    (image,) = load_images("monuseg", consep)
    assert isinstance(image, CellImage)
    np.testing.assert_array_equal(image.load().label, [0, 0])


def test_a_nucleus_without_type_is_named(consep: Path) -> None:
    write_text(consep / "types/a.csv", "id,type\n7,other\n")
    (image,) = load_images("consep", consep)
    with pytest.raises(InputError, match=r"a\.csv: has no row for nucleus 3"):
        image.load()


def test_an_unknown_type_is_named(consep: Path) -> None:
    write_text(consep / "types/a.csv", "id,type\n7,alien\n3,other\n")
    (image,) = load_images("consep", consep)
    with pytest.raises(InputError, match=r"type 'alien' is none of"):
        image.load()


def test_points_of_crchisto(crchisto: Path) -> None:
    (image,) = load_images("crchisto", crchisto)
    assert isinstance(image, CellImage)
    cells = image.load()
    np.testing.assert_allclose(np.stack([cells.x, cells.y]), [[1.5, 7.9], [2.0, 5.5]])
    np.testing.assert_array_equal(cells.label, [2, 0])
    assert cells.nuclei is None


@pytest.mark.parametrize("row", ["1,2,3,x", "1,two,1,x", "1,2,,x"])
def test_a_wrong_row_of_points_is_refused(crchisto: Path, row: str) -> None:
    write_text(crchisto / "points/a.csv", f"x,y,label,class\n{row}\n")
    (image,) = load_images("crchisto", crchisto)
    with pytest.raises(InputError, match=r"a\.csv"):
        image.load()


@pytest.mark.parametrize("name", ["glas", "ebhi-seg"])
def test_only_glands_of_malignant_images_are_cancer(glands: Path, name: str) -> None:
    images = {image.name: image for image in load_images(name, glands)}
    bad, good = images["bad"], images["good"]
    assert isinstance(bad, TissueImage)
    assert isinstance(good, TissueImage)
    expected = np.full((6, 8), 255)
    expected[2:4] = 2
    np.testing.assert_array_equal(bad.load(), expected)
    np.testing.assert_array_equal(good.load(), np.ones((6, 8)))


@pytest.mark.parametrize(("name", "table"), [("glas", "grade.csv"), ("ebhi-seg", "index.csv")])
def test_an_image_without_class_is_named(glands: Path, name: str, table: str) -> None:
    (glands / table).write_text((glands / table).read_text().replace("good", "other"))
    with pytest.raises(InputError, match="'good'"):
        load_images(name, glands)


def test_a_table_without_the_column_says_what_it_has(crchisto: Path) -> None:
    write_text(crchisto / "points/a.csv", "x,y\n1,2\n")
    (image,) = load_images("crchisto", crchisto)
    with pytest.raises(InputError, match=r"no column label; it has \['x', 'y'\]"):
        image.load()


@pytest.mark.parametrize("name", ["consep", "crchisto", "monuseg"])
def test_a_folder_without_images_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="holds no images"):
        load_images(name, tmp_path)


def test_an_unknown_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose one of consep, crchisto"):
        load_images("pannuke", tmp_path)


SHARED_FOLDERS = {
    "consep": ("nuclei/consep", 41, 24_332),
    "monuseg": ("nuclei/monuseg", 13, 4_949),
    "crchisto": ("pretraining/crchisto", 100, 29_776),  # twenty more than its paper counts
    "glas": ("pretraining/glas", 165, 0),
    "ebhi-seg": ("pretraining/ebhi_seg", 749, 0),
}
"""Folder, images and cells as the datasets' papers and cards state them."""


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_DATASETS)
def test_the_real_datasets_hold_what_their_cards_say(shared: Path, name: str) -> None:
    place, number, cells = SHARED_FOLDERS[name]
    images = load_images(name, shared / place)
    assert len(images) == number
    loaded = [image.load() for image in images]
    read: Callable[[object], int] = lambda item: len(getattr(item, "x", ()))  # noqa: E731
    assert sum(map(read, loaded)) == cells


def test_images_of_16_bits_keep_their_brightness(tmp_path: Path) -> None:
    dark = np.full((20, 30, 3), 40 * 257, np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(dark, isVector=True), str(tmp_path / "deep.png"))
    np.testing.assert_array_equal(read_rgb(tmp_path / "deep.png"), np.full((20, 30, 3), 40))
    with pytest.raises(InputError, match=r"gone\.png: cannot be read as an image: "):
        read_rgb(tmp_path / "gone.png")
