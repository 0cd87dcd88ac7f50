"""Results read back by the programs that they are written for."""

import csv
import gzip
import io
import json
import math
import re
import sys
from itertools import pairwise

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from softctm.errors import MissingPackageError
from softctm.writers.slide_formats import FORMATS
from softctm.writers.slide_overview import OverviewContent, Panel, draw_overview
from softctm.writers.slide_points import SlideCells
from softctm.writers.tissue_pyramid import write_tissue_pyramid


def cells(count, seed=0):
    random = np.random.default_rng(seed)
    x, y = random.integers(0, 90000, count) + 0.5, random.integers(0, 70000, count) + 0.5
    score = random.random((count, 3)).astype(np.float32)
    label = random.integers(1, 3, count).astype(np.uint8)
    return SlideCells(x * 0.8, y * 0.8, x * 0.2, y * 0.2, label, score[:, 0], score[:, 1], score[:, 2])


PARTS = [cells(40, 1), cells(0), cells(1, 2), cells(300, 3)]
X, Y, LABEL, SCORE, OTHER, TISSUE = (
    np.concatenate([getattr(part, name) for part in PARTS])
    for name in ("x", "y", "label", "probability", "other_probability", "tissue_probability")
)


def written(name, folder, parts=PARTS):
    file_name, writer = FORMATS[name]
    with writer(folder / file_name) as add:
        for part in parts:
            add(part)
    return folder / file_name


def test_geojson_is_as_qupath_writes_it(tmp_path):
    document = json.loads(written("geojson", tmp_path).read_bytes())
    assert document["type"] == "FeatureCollection"
    assert len(document["features"]) == len(X)
    for feature, x, y, label, score in zip(document["features"], X, Y, LABEL, SCORE, strict=True):
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Point"
        assert feature["geometry"]["coordinates"] == pytest.approx([x, y], abs=0.0051)
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert properties["classification"] == (
            {"name": "Tumor cell", "color": [0, 120, 255]}
            if label == 2
            else {"name": "Background cell", "color": [255, 225, 0]}
        )
        assert properties["measurements"]["Probability"] == pytest.approx(score, abs=5.1e-5)
    compressed = written("geojson.gz", tmp_path).read_bytes()
    assert json.loads(gzip.decompress(compressed)) == document
    assert compressed == written("geojson.gz", tmp_path).read_bytes()  # no time of writing in it


def test_geopandas_reads_geojson(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.read_file(written("geojson", tmp_path))
    np.testing.assert_allclose(frame.geometry.x, X, atol=0.0051)
    np.testing.assert_allclose(frame.geometry.y, Y, atol=0.0051)
    assert (frame["objectType"] == "detection").all()
    names = [
        json.loads(each)["name"] if isinstance(each, str) else each["name"]
        for each in frame["classification"]
    ]
    assert names == ["Tumor cell" if label == 2 else "Background cell" for label in LABEL]


def test_csv_and_parquet_hold_the_same(tmp_path):
    with written("csv", tmp_path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(written("parquet", tmp_path)).to_pydict()
    assert list(rows[0]) == list(table)
    np.testing.assert_array_equal(table["x"], X)
    np.testing.assert_array_equal(np.array(table["other_probability"], np.float32), OTHER)
    for name, column in table.items():
        if name == "class":
            assert [row[name] for row in rows] == column == ["TC" if label == 2 else "BC" for label in LABEL]
        else:
            np.testing.assert_allclose([float(row[name]) for row in rows], column, atol=0.0501)


def test_anndata_reads_h5ad(tmp_path):
    anndata = pytest.importorskip("anndata")
    table = anndata.read_h5ad(written("h5ad", tmp_path))
    assert table.n_obs == len(X)
    np.testing.assert_array_equal(table.obsm["spatial"], np.column_stack((X, Y)))
    np.testing.assert_allclose(table.obsm["spatial_um"], np.column_stack((X, Y)) / 4)
    assert list(table.obs["class"]) == ["TC" if label == 2 else "BC" for label in LABEL]
    np.testing.assert_array_equal(table.obs["tissue_probability"], TISSUE)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("parts", [[], [cells(0)]])
def test_no_cells_are_a_valid_file(name, parts, tmp_path):
    path = written(name, tmp_path, parts)
    if name == "geojson":
        assert json.loads(path.read_bytes())["features"] == []
    elif name == "csv":
        assert path.read_text().count("\n") == 1
    elif name == "h5ad":
        assert pytest.importorskip("anndata").read_h5ad(path).n_obs == 0
    elif name == "parquet":
        assert pytest.importorskip("pyarrow.parquet").read_table(path).num_rows == 0


@pytest.mark.parametrize("name", FORMATS)
def test_a_writer_that_is_interrupted_leaves_no_file(name, tmp_path):
    file_name, writer = FORMATS[name]

    def interrupted():
        with writer(tmp_path / file_name) as add:
            add(cells(9))
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(1337, 2601), (512, 512), (1, 1), (513, 40), (2048, 1024)])
def test_the_tissue_map_is_read_by_tifffile_and_openslide(size, tmp_path):
    height, width = size
    tissue = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
    names = ("background", "cancer", "unknown")
    for name in ("a.tif", "b.tif"):
        write_tissue_pyramid(
            tmp_path / name, lambda x, y, w, h: tissue[:, y : y + h, x : x + w], width, height, names, 0.8
        )
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_ome
        assert re.findall('Channel ID="[^"]*" SamplesPerPixel="1" Name="([^"]*)"', file.ome_metadata) == list(
            names
        )
        assert 'PhysicalSizeX="0.8" PhysicalSizeXUnit="µm"' in file.ome_metadata
        (series,) = file.series
        levels = [level.asarray() for level in series.levels]
    np.testing.assert_array_equal(levels[0], tissue)
    assert max(levels[-1].shape[1:]) <= 512
    for finer, coarser in pairwise(levels):
        h, w = (side - side % 2 for side in finer.shape[1:])
        means = finer[:, :h, :w].reshape(3, h // 2, 2, w // 2, 2).mean(axis=(2, 4))
        assert coarser.shape[1:] == tuple(-(-side // 2) for side in finer.shape[1:])
        assert np.abs(coarser[:, : h // 2, : w // 2] - means).max() <= 0.5
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert slide.dimensions == (width, height)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.8)
        region = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
    np.testing.assert_array_equal(region[..., 0], tissue[0])


def content(**changes):
    random = np.random.default_rng(0)
    cancer = np.zeros((60, 90), np.float32)
    cancer[20:40, 30:60] = 1
    given = {
        "title": "slide",
        "image": np.full((240, 360, 3), 240, np.uint8),
        "image_um": 4.0,
        "width_um": 1435.0,
        "height_um": 950.0,
        "grid_um": 16.0,
        "cancer": cancer,
        "looked_at": np.ones((60, 90), np.float32),
        "panels": [Panel.of_color("Some", (255, 0, 0)), Panel.of_color("Others", (0, 0, 255))],
        "density": random.integers(0, 3, (2, 60, 90)).astype(np.uint16),
        "numbers": [("tumor cells", "12"), ("tissue", "1.2 mm²")],
    }
    return OverviewContent(**(given | changes))


def shows(color, data):
    """Whether a color is in the thumbnail, without the legend below it."""
    image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    return bool((image[64:640, :920] == color).all(axis=-1).any())


def test_the_overview_shows_cancer_area_region_and_density():
    pink, green = (196, 30, 122), (0, 110, 60)
    data = draw_overview(content())
    assert data == draw_overview(content())
    assert shows(pink, data)
    assert not shows(green, data)
    without = draw_overview(content(cancer=np.zeros((60, 90), np.float32)))
    assert not shows(pink, without)
    ring = np.array([(100, 100), (900, 100), (900, 700), (100, 100)], float)
    assert shows(green, draw_overview(content(rings=[ring])))


@pytest.mark.parametrize(("width", "height"), [(90000.0, 400.0), (300.0, 60000.0), (50.0, 40.0)])
def test_an_overview_of_any_shape_can_be_drawn(width, height):
    grid = (math.ceil(height / 16), math.ceil(width / 16))
    data = draw_overview(
        content(
            width_um=width,
            height_um=height,
            cancer=np.ones(grid, np.float32),
            looked_at=np.zeros(grid, np.float32),
            density=np.zeros((2, *grid), np.uint16),
        )
    )
    assert Image.open(io.BytesIO(data)).format == "PNG"


def test_a_missing_library_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match="pyarrow is not installed; install it: pip install"):
        written("parquet", tmp_path)
