"""Files of nuclei, read back by other programs' libraries where they are installed."""

import csv
import gc
import importlib
import json
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from softctm.errors import MissingPackageError, OutputError
from softctm.nuclei_table import PANNUKE_TYPES, NucleiTable, types_named
from softctm.postprocessing.embeddings import nuclei_embeddings
from softctm.postprocessing.hover import classify_nuclei
from softctm.postprocessing.measured_nuclei import MeasuredNuclei, measured_nuclei
from softctm.writers import embedding_files
from softctm.writers.embedding_files import AnnDataWriter, ParquetWriter
from softctm.writers.label_image import write_label_image
from softctm.writers.nuclei_files import (
    CSV_COLUMNS,
    FURTHER_NUCLEI_WRITERS,
    NUCLEI_WRITERS,
    CsvWriter,
    GeoJsonWriter,
)

WRITERS = tuple(FURTHER_NUCLEI_WRITERS.values())


@pytest.fixture
def squares():
    """Two squares of 4 × 4 pixels, neoplastic and connective."""
    instances = np.zeros((16, 20), np.int32)
    instances[2:6, 3:7], instances[8:12, 10:14] = 1, 2
    table = classify_nuclei(instances, np.array([0, 1, 3])[instances])
    image = np.full((16, 20, 3), 200, np.uint8)
    return measured_nuclei(image, instances, table, mpp=0.25)


def written(writer, path, *batches, **placement):
    with writer(path, PANNUKE_TYPES) as file:
        for batch in batches:
            file.add(batch, **placement)
    return path.read_text()


def test_geojson(tmp_path, squares):
    document = json.loads(written(GeoJsonWriter, tmp_path / "a.geojson", squares, squares))
    assert document["type"] == "FeatureCollection"
    assert len(document["features"]) == 4
    first = document["features"][0]
    assert first["properties"]["objectType"] == "detection"
    assert first["properties"]["classification"] == {
        "name": "neoplastic",
        "color": list(PANNUKE_TYPES[1].color),
    }
    measurements = first["properties"]["measurements"]
    assert measurements["id"] == 1
    assert measurements["probability"] == 1
    assert measurements["area_um2"] == 1  # 16 pixels of 1/16 µm²
    assert measurements["perimeter_um"] == 3  # 12 steps between border pixels' centers
    ring = first["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert len(ring) == 9
    assert np.array(ring).min(0).tolist() == [3, 2]
    assert np.array(ring).max(0).tolist() == [7, 6]


def test_csv(tmp_path, squares):
    text = written(CsvWriter, tmp_path / "a.csv", squares)
    first, second = csv.DictReader(text.splitlines())
    assert tuple(first) == CSV_COLUMNS
    for page in ("nuclei.md", "slides.md"):
        text = (Path(__file__).parents[2] / "docs" / page).read_text()
        assert ", ".join(f"`{name}`" for name in CSV_COLUMNS) in text
    assert (first["x"], first["y"], first["type"]) == ("5.0", "4.0", "neoplastic")
    assert [float(second[side]) for side in ("left", "top", "right", "bottom")] == [10, 8, 14, 12]
    assert float(second["area_um2"]) == 1


def test_both_on_a_slide(tmp_path, squares):
    """A map of half the slide's resolution that begins at (100, 1000)."""
    place = {"origin": (100, 1000), "scale": (2, 2)}
    (row, _) = csv.DictReader(written(CsvWriter, tmp_path / "a.csv", squares, **place).splitlines())
    assert (row["x"], row["y"], row["left"], row["bottom"]) == ("110.0", "1008.0", "106.0", "1012.0")
    document = json.loads(written(GeoJsonWriter, tmp_path / "a.geojson", squares, **place))
    ring = np.array(document["features"][0]["geometry"]["coordinates"][0])
    assert ring.min(0).tolist() == [106, 1004]
    assert ring.max(0).tolist() == [114, 1012]


def test_polygons_are_valid(tmp_path, shared):
    geometry = pytest.importorskip("shapely.geometry")
    post = np.load(shared / "reference/cellvit/post_1.npz")
    instances = post["instances"]
    table = classify_nuclei(instances, post["types"])
    nuclei = measured_nuclei(np.zeros((*instances.shape, 3), np.uint8), instances, table, mpp=0.25)
    document = json.loads(written(GeoJsonWriter, tmp_path / "a.geojson", nuclei))
    assert len(document["features"]) == len(table)
    for feature, x, y, area in zip(document["features"], table.x, table.y, table.area_px, strict=True):
        polygon = geometry.shape(feature["geometry"])
        assert polygon.is_valid
        assert polygon.exterior.is_ccw
        assert polygon.area == pytest.approx(area, rel=0.1)
        assert polygon.centroid.distance(geometry.Point(x + 0.5, y + 0.5)) < 0.5


@pytest.mark.parametrize("name", NUCLEI_WRITERS)
def test_without_nuclei(tmp_path, name, squares):
    file, writer = NUCLEI_WRITERS[name]
    text = written(writer, tmp_path / file)
    assert text.strip()
    assert written(writer, tmp_path / file, squares.where(np.zeros(2, bool))) == text
    if name == "geojson":
        assert json.loads(text)["features"] == []


@pytest.mark.parametrize("writer", [writer for _, writer in NUCLEI_WRITERS.values()])
def test_memory_does_not_grow_with_the_nuclei(tmp_path, squares, writer):
    peaks = []
    for batches in (10, 1000):
        tracemalloc.start()
        with writer(tmp_path / "a", PANNUKE_TYPES) as file:
            for _ in range(batches):
                file.add(squares)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 20_000


@pytest.mark.parametrize("writer", [writer for _, writer in NUCLEI_WRITERS.values()])
def test_a_run_that_fails_leaves_the_old_file(tmp_path, squares, writer):
    path = tmp_path / "a"
    path.write_text("old")

    def fail():
        with writer(path, PANNUKE_TYPES) as file:
            file.add(squares)
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_folder_that_is_not_there_is_named(tmp_path, squares):
    with pytest.raises(OutputError, match="absent"):
        written(CsvWriter, tmp_path / "absent/a.csv", squares)
    with pytest.raises(OutputError, match="absent"):
        write_label_image(tmp_path / "absent/a.tif", np.zeros((3, 3), int))


@pytest.mark.parametrize("shape", [(3, 5), (512, 512), (1300, 700)])
def test_label_image(tmp_path, shape):
    instances = np.random.default_rng(0).integers(0, 2**31, shape, dtype=np.int64)
    write_label_image(tmp_path / "a.tif", instances, mpp=0.25)
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), instances)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page, levels = tiff.pages[0], tiff.series[0].levels
        assert page.is_tiled
        assert page.dtype == np.uint32
        assert 'PhysicalSizeX="0.25"' in tiff.ome_metadata
        assert max(levels[-1].shape) <= 512
        for number, level in enumerate(levels):
            assert np.array_equal(level.asarray(), instances[:: 2**number, :: 2**number])


def test_label_image_without_imagecodecs(tmp_path):
    """tifffile alone, which is what the project depends on, compresses and reads it."""
    import subprocess

    script = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "import numpy as np, tifffile, pathlib\n"
        "from softctm.writers.label_image import write_label_image\n"
        f"path = pathlib.Path({str(tmp_path)!r}) / 'a.tif'\n"
        "labels = np.arange(600 * 600).reshape(600, 600)\n"
        "write_label_image(path, labels)\n"
        "assert (tifffile.imread(path) == labels).all()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_embeddings_are_means_of_tokens():
    tokens = np.arange(2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3)
    instances = np.zeros((8, 12), np.int32)
    instances[0:3, 0:3] = 1  # within the first token
    instances[3:5, 6:10] = 5  # in all four tokens of the two right columns
    table = classify_nuclei(instances, instances)
    found = nuclei_embeddings(tokens, instances, table, stride=4)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, [[0, 6], [np.mean([1, 2, 4, 5]), np.mean([7, 8, 10, 11])]])
    # A map that ends within the last tokens, as that of a field at an image's border does.
    np.testing.assert_array_equal(nuclei_embeddings(tokens, instances[:5, :10], table, stride=4), found)
    assert nuclei_embeddings(tokens, instances * 0, NucleiTable.empty(), stride=4).shape == (0, 2)
    with pytest.raises(ValueError, match="do not cover"):
        nuclei_embeddings(tokens, np.zeros((9, 12), int), table, stride=4)


def with_vectors(nuclei, depth=8):
    vectors = np.random.default_rng(0).standard_normal((len(nuclei), depth)).astype(np.float16)
    return replace(nuclei, embeddings=vectors)


def test_parquet(tmp_path, squares, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(embedding_files, "_ROWS_A_GROUP", 3)
    nuclei = with_vectors(squares)
    with ParquetWriter(tmp_path / "e.parquet", PANNUKE_TYPES) as file:
        for x in range(3):
            file.add(nuclei, origin=(100 * x, 0))
    with parquet.ParquetFile(tmp_path / "e.parquet") as written_file:
        groups = [written_file.metadata.row_group(i).num_rows for i in range(written_file.num_row_groups)]
    assert groups == [4, 2]  # written as they come
    rows = parquet.read_table(tmp_path / "e.parquet")
    assert rows["type"].to_pylist() == ["neoplastic", "connective"] * 3
    assert rows["x"].to_pylist() == [5, 12, 105, 112, 205, 212]
    assert str(rows["embedding"].type) == "fixed_size_list<element: halffloat>[8]"
    expected = np.concatenate([nuclei.embeddings] * 3)
    assert np.array_equal(np.array(rows["embedding"].to_pylist(), np.float16), expected)


def test_anndata(tmp_path, squares):
    anndata = pytest.importorskip("anndata")
    nuclei = with_vectors(squares)
    with AnnDataWriter(tmp_path / "e.h5ad", PANNUKE_TYPES) as file:
        file.add(nuclei, scale=(2, 2))
        file.add(nuclei.moved(100, 0, np.array([3, 4], np.int32)), scale=(2, 2))
    data = anndata.read_h5ad(tmp_path / "e.h5ad")
    assert data.X.dtype == np.float16
    assert np.array_equal(data.X, np.concatenate([nuclei.embeddings] * 2))
    assert data.obs["id"].tolist() == [1, 2, 3, 4]
    assert data.obs["type"].tolist() == ["neoplastic", "connective"] * 2
    assert data.obsm["spatial"].tolist() == [[10, 8], [24, 20], [210, 8], [224, 20]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["e.h5ad"]


@pytest.mark.parametrize("writer", [ParquetWriter, AnnDataWriter])
def test_embeddings_of_no_nuclei_are_a_table_without_rows(writer, tmp_path):
    for module in ("pyarrow", "anndata"):
        pytest.importorskip(module)
    path = tmp_path / "e"
    with writer(path, PANNUKE_TYPES):
        pass
    if writer is ParquetWriter:
        rows = importlib.import_module("pyarrow.parquet").read_table(path)
        assert (rows.num_rows, rows.column_names) == (0, ["id", "x", "y", "type", "embedding"])
    else:
        assert importlib.import_module("anndata").read_h5ad(path).n_obs == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["e.parquet", "e.h5ad", "e.geojson.gz"])
def test_a_file_that_is_given_up_leaves_nothing(name, tmp_path, squares, monkeypatch):
    monkeypatch.setattr(embedding_files, "_ROWS_A_GROUP", 1)
    writers = {file.replace("embeddings", "e").replace("nuclei", "e"): kind for file, kind in WRITERS}
    for module in ("pyarrow", "anndata"):
        pytest.importorskip(module)

    def fill():
        with writers[name](tmp_path / name, PANNUKE_TYPES) as file:
            file.add(with_vectors(squares))
            raise KeyError

    with pytest.raises(KeyError):
        fill()
    gc.collect()  # a writer that is still open would try to write its end now
    assert list(tmp_path.iterdir()) == []


def test_embeddings_follow_their_nuclei(squares):
    nuclei = with_vectors(squares)
    second = nuclei.where(np.array([False, True]))
    assert np.array_equal(second.embeddings, nuclei.embeddings[1:])
    both = MeasuredNuclei.concatenated([second, nuclei.where(np.array([0]))])
    assert np.array_equal(both.embeddings, nuclei.embeddings[::-1])
    with pytest.raises(ValueError, match="the same rows"):
        replace(nuclei, embeddings=nuclei.embeddings[:1])


def test_missing_library_is_named(tmp_path, squares, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with (
        pytest.raises(MissingPackageError, match=r"pip install -e '\.\[embeddings\]'"),
        ParquetWriter(tmp_path / "e.parquet", PANNUKE_TYPES) as file,
    ):
        file.add(with_vectors(squares))
    assert list(tmp_path.iterdir()) == []


def test_named_types_have_different_colors():
    types = types_named([str(number) for number in range(8)])
    assert len({kind.color for kind in types}) == 9
    names = [
        "endothelial",
        "fibroblast",
        "healthy_epithelial",
        "inflammatory",
        "malignant_epithelial",
        "muscle",
        "other",
    ]
    color = {kind.name: kind.color for kind in types_named(names)}
    assert len(set(color.values())) == 8  # background's too
    of_pannuke = {kind.name: kind.color for kind in PANNUKE_TYPES}
    assert color["inflammatory"] == of_pannuke["inflammatory"]
    assert color["malignant_epithelial"] == of_pannuke["neoplastic"]
    assert len(types_named([str(number) for number in range(30)])) == 31
