"""The OCELOT release on disk: what is read, and what is wrong said by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softctm.datasets.ocelot import AnnotatedPair, load_release
from softctm.errors import InputError, UsageError
from softctm.readers.input_layouts import open_pairs


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Two pairs of the subset train, one of val; only the annotations have files."""
    entries = {
        "002": {"slide_name": "TCGA-AB-1234-01Z-00-DX1", "organ": "kidney", "subset": "train"},
        "001": {"slide_name": "TCGA-AB-1234-02Z-00-DX2", "organ": "bladder", "subset": "train"},
        "003": {"slide_name": "TCGA-CD-5678-01Z-00-DX1", "organ": "kidney", "subset": "val"},
    }
    for kind in ("cell", "tissue"):
        (tmp_path / "annotations/train" / kind).mkdir(parents=True)
    (tmp_path / "metadata.json").write_text(json.dumps({"sample_pairs": entries}))
    return tmp_path


@pytest.fixture
def pair(release: Path) -> AnnotatedPair:
    return load_release(release)[0]


def write_tissue(pair: AnnotatedPair, labels: np.ndarray) -> None:
    Image.fromarray(labels).save(pair.tissue_png)


def test_pairs_of_a_subset_in_order_with_their_patients(release: Path) -> None:
    pairs = load_release(release)
    assert [pair.id for pair in pairs] == ["001", "002"]
    assert [pair.organ for pair in pairs] == ["bladder", "kidney"]
    assert {pair.patient for pair in pairs} == {"TCGA-AB-1234"}  # two slides, one patient
    assert pairs[0].cell_image == release / "images/train/cell/001.jpg"
    assert pairs[0].tissue_image == release / "images/train/tissue/001.jpg"
    assert pairs[1].cell_csv == release / "annotations/train/cell/002.csv"
    assert pairs[1].tissue_png == release / "annotations/train/tissue/002.png"
    assert [pair.id for pair in load_release(release, "val")] == ["003"]


def test_cells_are_read_row_by_row(pair: AnnotatedPair) -> None:
    pair.cell_csv.write_text("0,1023,1\n17,4,2\n\n")
    cells = pair.cells()
    assert (cells.x.tolist(), cells.y.tolist(), cells.label.tolist()) == ([0, 17], [1023, 4], [1, 2])
    assert cells.score.tolist() == [1, 1]


def test_empty_file_is_a_patch_without_cells(pair: AnnotatedPair) -> None:
    pair.cell_csv.write_text("")
    assert len(pair.cells()) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n", 'line 1, "1,2", is not 3 numbers, x,y,label'),
        ("1,2,3,4\n5,6\n", 'line 1, "1,2,3,4", is not 3 numbers'),
        ("1,2,1\n\nx,y,label\n", 'line 3, "x,y,label", is not 3 numbers'),
        ("x;y;label\n1;2;1\n", 'line 1, "x;y;label", is not 3 numbers'),
        ("y,x,label\n1,2,1\n", 'line 1, "y,x,label", is not 3 numbers'),
        ("1,2,nan\n", 'line 1, "1,2,nan": labels must be'),
        ("1024,2,1\n", 'line 1, ".*": positions must lie in 0 … 1023'),
        ("5,-1,1\n", 'line 1, ".*": positions must lie in 0 … 1023'),
        ("5,1,3\n", 'line 1, ".*": labels must be 1 .* or 2'),
        ("5,1,0\n", 'line 1, ".*": labels must be 1 .* or 2'),
        ("1e400,1,1\n", 'line 1, "inf,1,1": positions must'),
        ("99999999999,1,1\n", 'line 1, ".*": positions must lie in 0 … 1023'),
        ("5,6,1\n5,6,1,2,3,1\n", 'line 2, "5,6,1,2,3,1", is not 3 numbers'),
    ],
)
def test_wrong_cells_are_refused_with_the_file(pair: AnnotatedPair, text: str, message: str) -> None:
    pair.cell_csv.write_text(text)
    with pytest.raises(InputError, match=rf"001\.csv: {message}"):
        pair.cells()


def test_line_that_is_wrong_is_named_and_quoted(pair: AnnotatedPair) -> None:
    pair.cell_csv.write_text("x,y,label\n1,2,1\n\n  7,2000,1\n")
    with pytest.raises(InputError, match=r'001\.csv: line 4, "7,2000,1": positions must lie'):
        pair.cells()
    pair.cell_csv.write_text("1,2,1\nx,y,label\n")
    with pytest.raises(InputError, match=r'001\.csv: line 2, "x,y,label", is not 3 numbers'):
        pair.cells()


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff5,6,2\n",
        "\ufeffx,y,label\n5,6,2\n",
        "x,y,label\r\n5,6,2\r\n\r\n",
        '"X","Y","Label"\n5,6,2\n\n\n',
        "5, 6, 2",
    ],
)
def test_header_byte_order_mark_and_empty_lines_are_passed_over(pair: AnnotatedPair, text: str) -> None:
    pair.cell_csv.write_bytes(text.encode())
    cells = pair.cells()
    assert (cells.x.tolist(), cells.y.tolist(), cells.label.tolist()) == ([5], [6], [2])


def test_byte_order_mark_of_metadata_is_passed_over(release: Path) -> None:
    path = release / "metadata.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [pair.id for pair in load_release(release)] == ["001", "002"]


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".png", ".PNG", ".tif", ".tiff"])
def test_images_are_found_and_read_whatever_their_suffix(release: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3)).astype(np.uint8)
    pixels[:512] = 200
    for kind in ("cell", "tissue"):
        folder = release / "images/train" / kind
        folder.mkdir(parents=True)
        Image.fromarray(pixels).save(folder / f"002{suffix}", quality=95)
    pair = load_release(release)[1]
    for image, patch in ((pair.cell_image, pair.cell_patch()), (pair.tissue_image, pair.tissue_patch())):
        assert image.name == f"002{suffix}"
        assert patch.shape == (1024, 1024, 3)
        assert abs(patch[:500].astype(int) - 200).max() <= 2


def test_images_are_read_as_prediction_reads_them(release: Path) -> None:
    folder = release / "images/train/cell"
    folder.mkdir(parents=True)
    pixels = np.zeros((1024, 1024, 3), np.uint8)
    pixels[:, :512] = 255
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = 6  # shown turned by a quarter, clockwise
    image.save(folder / "001.jpg", exif=image.getexif(), quality=95)
    patch = load_release(release)[0].cell_patch()
    assert patch[:500].min() > 250
    assert patch[524:].max() < 5
    transparent = np.zeros((1024, 1024, 4), np.uint8)
    Image.fromarray(transparent).save(folder / "002.png")
    with pytest.raises(InputError, match=r"002\.png: is partly transparent"):
        load_release(release)[1].cell_patch()
    (folder / "002.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 images share the stem 002 \(002\.jpg, 002\.png\); keep one"):
        load_release(release)


@pytest.mark.parametrize(
    "data",
    [
        b"x,y,label\n5,6,1\n",
        b"\xef\xbb\xbf5,6,1\r\n",
        "\ufeffX, Y, Label\r\n5,6,1\r\n".encode("utf-16-le"),
        b"\n5,6,1\n\n\n",
        b"5,6,1\n,,\n",
    ],
)
def test_tables_as_spreadsheets_write_them(pair: AnnotatedPair, data: bytes) -> None:
    pair.cell_csv.write_bytes(data)
    cells = pair.cells()
    assert (cells.x.tolist(), cells.y.tolist(), cells.label.tolist()) == ([5], [6], [1])


def test_missing_annotations_are_named(pair: AnnotatedPair) -> None:
    with pytest.raises(InputError, match=r"001\.csv: is missing"):
        pair.cells()
    with pytest.raises(InputError, match=r"001\.png: is missing; add it"):
        pair.tissue_labels()


def test_tissue_labels_are_read_as_they_are(pair: AnnotatedPair) -> None:
    labels = np.random.default_rng(0).choice(np.array([1, 2, 255], np.uint8), (1024, 1024))
    write_tissue(pair, labels)
    np.testing.assert_array_equal(pair.tissue_labels(), labels)


def test_wrong_tissue_is_refused_with_the_file(pair: AnnotatedPair) -> None:
    write_tissue(pair, np.ones((512, 512), np.uint8))
    with pytest.raises(InputError, match=r"001\.png: must be an 8-bit gray image of 1024 × 1024"):
        pair.tissue_labels()
    write_tissue(pair, np.ones((1024, 1024, 3), np.uint8))
    with pytest.raises(InputError, match=r"001\.png: must be an 8-bit gray image"):
        pair.tissue_labels()
    labels = np.ones((1024, 1024), np.uint8)
    labels[3, 5] = 7
    write_tissue(pair, labels)
    with pytest.raises(InputError, match=r"001\.png: labels must be 1, 2 or 255, found .*7"):
        pair.tissue_labels()
    pair.tissue_png.write_text("no image")
    with pytest.raises(InputError, match=r"001\.png: is not an image; replace it"):
        pair.tissue_labels()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"sample_pairs": 3}', '{"sample_pairs": {"001": {"organ": "kidney"}}}']
)
def test_metadata_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.json").write_text(text)
    with pytest.raises(
        InputError, match=r"metadata\.json: (not an OCELOT release's metadata|is not valid JSON)"
    ):
        load_release(tmp_path)


def test_folder_without_metadata_and_subset_without_pairs_are_named(release: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is .*empty an OCELOT release"):
        load_release(tmp_path / "empty")
    message = f"^--subset test: {release} holds only train, val$"
    for subset in ("train", "val"):
        (release / "images" / subset / "cell").mkdir(parents=True)
    for read in (load_release, open_pairs):  # for training and scores, and for prediction
        with pytest.raises(UsageError, match=message):
            read(release, "test")


def test_real_release(shared: Path) -> None:
    pairs = load_release(shared / "ocelot")
    assert len(pairs) == 339
    cells = [pair.cells() for pair in pairs[:20]]
    assert sum(map(len, cells)) > 500
    assert set(np.unique(pairs[0].tissue_labels())) <= {1, 2, 255}
