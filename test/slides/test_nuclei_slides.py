"""Nuclei on slides: those of the image looked at at once, however the work is cut, stopped or spread."""

import csv
import gzip
import itertools
import json
import os
import re
from itertools import pairwise

import numpy as np
import pytest
import shapely
import tifffile
from color_nuclei import RADIUS, TYPES, drawn, heads, save, token_head, write_model
from slide_files import picture, reduced, write_tiff

from softctm import load_detector
from softctm.cli import main
from softctm.errors import MissingPackageError, ModelError, PartialResultError, SlideError, UsageError
from softctm.jobs.slides.cohort import run_cohort
from softctm.jobs.slides.findings import find_nuclei_on_slide
from softctm.jobs.slides.nuclei import merge
from softctm.jobs.slides.nuclei import plan as nuclei_plan
from softctm.jobs.slides.options import SlideOptions
from softctm.postprocessing.measured_nuclei import measured_nuclei
from softctm.slides import open_slide
from softctm.slides.mask import read_overview, tissue_mask
from softctm.storage import files
from softctm.writers import slide_formats

RESULTS = ("nuclei.geojson", "nuclei.csv", "instances.tif", "overview.png")
STEP = 31
"""Of the drawn nuclei: with fields of 256 that share 64 they lie everywhere at borders."""


def centers_in(height, width, x0=15, y0=15):
    return [(float(x), float(y)) for y in range(y0, height - 10, STEP) for x in range(x0, width - 10, STEP)]


def crowded(height, width):
    """Disks anywhere, over and beside each other, and noise: fields disagree on what they share."""
    random = np.random.default_rng(0)
    count = height * width // 150
    centers = zip(random.uniform(0, width, count), random.uniform(0, height, count), strict=True)
    noise = 0.3 * (picture(height, width) - 128.0)
    return np.clip(drawn(height, width, list(centers)) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "by-color")


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    """Crowded: 4 × 3 fields."""
    image = crowded(500, 700)
    return write_tiff(tmp_path_factory.mktemp("slide") / "slide.tif", [image, reduced(image, 4)])


def run(inputs, output, model, **options):
    inputs = inputs if isinstance(inputs, list) else [inputs]
    return run_cohort(inputs, output, SlideOptions(weights=model, device="cpu", **options))


@pytest.fixture(scope="module")
def whole(slide_path, model, tmp_path_factory):
    """The results of one run over the whole slide."""
    folder = tmp_path_factory.mktemp("whole")
    run(slide_path, folder, model)
    return folder / "slide"


def contents(folder, names=RESULTS):
    return {name: (folder / name).read_bytes() for name in names}


def table(folder):
    return list(csv.DictReader((folder / "nuclei.csv").read_text().splitlines()))


def places(folder):
    return sorted((float(row["x"]), float(row["y"])) for row in table(folder))


def numbers(rows):
    """All columns but the id and the type."""
    return np.array([[float(v) for k, v in row.items() if k not in ("id", "type")] for row in rows])


def test_a_flat_image_has_the_nuclei_that_softctm_nuclei_finds(slide_path, whole, model, tmp_path):
    image = tifffile.imread(slide_path)
    save(image, tmp_path / "in" / "slide.png")
    command = ["nuclei", tmp_path / "in", "--output", tmp_path / "flat", "--weights", model]
    assert main([str(part) for part in command] + ["--device", "cpu"]) == 0
    flat, rows = table(tmp_path / "flat" / "slide"), table(whole)
    assert len(rows) > 300
    assert [row["id"] for row in rows] == [row["id"] for row in flat]
    assert [row["type"] for row in rows] == [row["type"] for row in flat]
    # Means of pixels may be rounded otherwise where they lie between two hundredths.
    np.testing.assert_allclose(numbers(rows), numbers(flat), atol=0.011)
    instances = tifffile.imread(whole / "instances.tif")
    np.testing.assert_array_equal(instances, tifffile.imread(tmp_path / "flat" / "slide" / "instances.tif"))
    documents = [
        json.loads((folder / "nuclei.geojson").read_text())["features"]
        for folder in (whole, tmp_path / "flat" / "slide")
    ]
    for feature, other in zip(*documents, strict=True):
        assert feature["geometry"] == other["geometry"]


def test_the_label_image_is_the_table(whole):
    rows = table(whole)
    with tifffile.TiffFile(whole / "instances.tif") as file:
        assert file.is_ome
        assert 'PhysicalSizeX="0.25" PhysicalSizeXUnit="µm"' in file.ome_metadata
        assert file.pages[0].is_tiled
        levels = [level.asarray() for level in file.series[0].levels]
    instances = levels[0]
    assert instances.dtype == np.uint32
    assert instances.shape == (500, 700)
    assert max(levels[-1].shape) <= 512
    for finer, coarser in pairwise(levels):
        np.testing.assert_array_equal(coarser, finer[::2, ::2])
    pixels = np.bincount(instances.ravel())
    ids = [int(row["id"]) for row in rows]
    assert ids == np.flatnonzero(pixels)[1:].tolist()  # rising, and all that the image holds
    for row in rows:
        left, top, right, bottom = (int(float(row[side])) for side in ("left", "top", "right", "bottom"))
        y, x = np.nonzero(instances[top:bottom, left:right] == int(row["id"]))
        assert len(y) == pixels[int(row["id"])] == round(float(row["area_um2"]) * 16)
        assert (x.min(), y.min(), x.max(), y.max()) == (0, 0, right - left - 1, bottom - top - 1)
        center = [left + x.mean() + 0.5, top + y.mean() + 0.5]
        assert [float(row["x"]), float(row["y"])] == pytest.approx(center, abs=0.006)


def test_geopandas_reads_valid_polygons(whole):
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.read_file(whole / "nuclei.geojson")
    rows = table(whole)
    assert len(frame) == len(rows)
    assert frame.geometry.is_valid.all()
    assert (frame.geometry.geom_type == "Polygon").all()
    assert (frame["objectType"] == "detection").all()
    boxes = np.array([[float(row[side]) for side in ("left", "top", "right", "bottom")] for row in rows])
    np.testing.assert_allclose(frame.geometry.bounds.to_numpy(), boxes, atol=0.01)
    # No two nuclei share an area.
    left, right = frame.sindex.query(frame.geometry, predicate="intersects")
    pairs = [(i, j) for i, j in zip(left.tolist(), right.tolist(), strict=True) if i < j]
    shared = [frame.geometry[i].intersection(frame.geometry[j]).area for i, j in pairs]
    # Outlines without holes may hold a small nucleus that lies in a hole of another one.
    assert np.mean(np.array(shared) > 1) < 0.05


@pytest.mark.parametrize("offset", [(64, 128), (37, 101)])
def test_white_above_and_left_and_seams_change_nothing(offset, model, tmp_path):
    """Drawn nuclei, of which every pixel is known: each once, wherever the lattice lies."""
    centers = centers_in(330, 420)
    image = np.full((330 + offset[1], 420 + offset[0], 3), 255, np.uint8)
    image[offset[1] :, offset[0] :] = drawn(330, 420, centers)
    run(write_tiff(tmp_path / "slide.tif", [image]), tmp_path / "out", model)
    expected = sorted((x + offset[0], y + offset[1]) for x, y in centers)
    np.testing.assert_allclose(places(tmp_path / "out" / "slide"), expected, atol=0.05)


def test_positions_are_level_0_pixels(model, tmp_path):
    centers = [(x / 2, y / 2) for x, y in centers_in(360, 500)]
    image = drawn(180, 250, centers, RADIUS / 2)
    run(write_tiff(tmp_path / "slide.tif", [image], mpp=0.5), tmp_path / "out", model)
    folder = tmp_path / "out" / "slide"
    np.testing.assert_allclose(places(folder), sorted(centers), atol=0.4)
    assert tifffile.imread(folder / "instances.tif").shape == (360, 500)
    warnings = json.loads((folder / "slide.json").read_text())["warnings"]
    assert len(warnings) == 1
    assert "0.5 µm per pixel is coarser than the 0.25 that the networks know" in warnings[0]


@pytest.mark.parametrize("side", [1, 3])
def test_nothing_depends_on_the_size_of_stretches(side, slide_path, whole, model, tmp_path, monkeypatch):
    monkeypatch.setattr(nuclei_plan, "STRETCH", side)
    run(slide_path, tmp_path, model)
    assert contents(tmp_path / "slide") == contents(whole)


def region_file(folder, *ring):
    path = folder / "region.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}))
    return path


def test_a_region_gives_the_nuclei_that_the_whole_slide_has_there(slide_path, whole, model, tmp_path):
    ring = [(190, 180), (480, 150), (455, 330), (205, 352)]  # its borders run along those of cores
    run(slide_path, tmp_path, model, region=region_file(tmp_path, *ring))
    shape = shapely.Polygon(ring)

    def without_id(rows):
        return [{name: value for name, value in row.items() if name != "id"} for row in rows]

    rows, folder = table(whole), tmp_path / "slide"
    inside = [row for row in rows if shape.covers(shapely.Point(float(row["x"]), float(row["y"])))]
    found = table(folder)
    assert 50 < len(inside) < len(rows) - 50
    assert without_id(found) == without_id(inside)
    kept = np.isin(tifffile.imread(whole / "instances.tif"), [int(row["id"]) for row in inside])
    instances = tifffile.imread(folder / "instances.tif")
    np.testing.assert_array_equal(instances > 0, kept)
    assert np.unique(instances)[1:].tolist() == [int(row["id"]) for row in found]
    record = json.loads((folder / "slide.json").read_text())
    assert 0 < record["tissue_mm2"] < shape.area * 0.25e-3**2 + 1e-4  # rounded to 1e-4


class Stopped(BaseException):
    """The process's end, as far as the job can tell."""


def test_a_run_stopped_at_any_write_goes_on_to_the_same_bytes(model, tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "slide.tif", [crowded(200, 500)])
    monkeypatch.setattr(nuclei_plan, "STRETCH", 1)
    run(path, tmp_path / "whole", model)
    expected = contents(tmp_path / "whole" / "slide")
    replace, unlink, left = os.replace, os.unlink, [0]

    def counted(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise Stopped
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", counted)
    monkeypatch.setattr(
        files.os, "unlink", lambda path, **where: None if left[0] < 0 else unlink(path, **where)
    )
    for writes in itertools.count():
        folder = tmp_path / str(writes)
        left[0] = writes
        try:
            run(path, folder, model)
        except Stopped:
            pass
        else:
            break
        left[0] = 10**6
        run(path, folder, model)
        assert contents(folder / "slide") == expected
        assert not list(folder.rglob("*.tmp"))
    assert writes > 8


def test_what_is_done_is_not_computed_again(slide_path, whole, model, tmp_path):
    before = contents(whole, (*RESULTS, "slide.json"))
    for file in (*RESULTS, "slide.json"):
        (tmp_path / "slide").mkdir(exist_ok=True)
        (tmp_path / "slide" / file).write_bytes(before[file])
    (tmp_path / "slide" / ".state").symlink_to(whole / ".state")
    run(slide_path, tmp_path, model, also=("geojson.gz",))
    compressed = (tmp_path / "slide" / "nuclei.geojson.gz").read_bytes()
    assert gzip.decompress(compressed) == before["nuclei.geojson"]
    assert contents(tmp_path / "slide") == {name: before[name] for name in RESULTS}
    record, earlier = (
        json.loads((tmp_path / "slide/slide.json").read_text()),
        json.loads(before["slide.json"]),
    )
    assert record["options"].pop("also") == [*earlier["options"].pop("also"), "geojson.gz"]
    assert record == earlier


def test_results_of_another_model_are_not_taken_for_these(slide_path, model, tmp_path):
    folder = tmp_path / "slide"
    (folder / ".state").mkdir(parents=True)
    (folder / ".state" / "key.json").write_text('{"model": "of cells"}')
    for name in ("cells.csv", "tissue.tif", "notes.txt"):
        (folder / name).write_text("from before")
    with pytest.raises(SlideError, match=r"another .*model.*; take another .*--overwrite"):
        run(slide_path, tmp_path, model)
    run(slide_path, tmp_path, model, overwrite=True)
    assert sorted(file.name for file in folder.iterdir() if file.is_file()) == sorted(
        [*RESULTS, "slide.json", "notes.txt"]
    )


@pytest.mark.parametrize("color", [(250, 250, 250), (200, 150, 220)])
def test_no_nuclei_are_a_result(color, model, tmp_path):
    path = write_tiff(tmp_path / "bare.tif", [np.full((300, 400, 3), color, np.uint8)])
    result = run(path, tmp_path / "out", model, also=("geojson.gz",))
    folder, record = tmp_path / "out" / "bare", result.rows[0].record
    assert table(folder) == []
    assert json.loads((folder / "nuclei.geojson").read_text())["features"] == []
    assert not tifffile.imread(folder / "instances.tif").any()
    assert (record["nuclei"], record["mean_area_um2"]) == (0, None)
    assert any("holds no tissue" in line for line in record["warnings"]) == (color[0] == 250)


def test_one_bad_tile_ends_its_slide_not_the_others(slide_path, model, tmp_path):
    damaged = bytearray(slide_path.read_bytes())
    with tifffile.TiffFile(slide_path) as file:
        offset, count = file.pages[0].dataoffsets[4], file.pages[0].databytecounts[4]
    damaged[offset : offset + count] = b"\xaa" * count
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tif").write_bytes(damaged)
    (tmp_path / "in" / "b.tif").symlink_to(slide_path)
    with pytest.raises(PartialResultError, match="1 of 2 slides failed: a"):
        run(tmp_path / "in", tmp_path / "out", model)
    rows = list(csv.DictReader((tmp_path / "out" / "cohort.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["failed", "complete"]
    assert "a.tif: cannot be read at level-0 pixel" in rows[0]["error"]
    counts = {kind: int(rows[1][f"{kind}_nuclei"]) for kind in TYPES[1:]}
    assert sum(counts.values()) == int(rows[1]["nuclei"]) == len(table(tmp_path / "out" / "b"))
    page = (tmp_path / "out" / "cohort.html").read_text()
    assert re.findall(r'data-kind="number">([^<]*)<', page)[:3] == ["Tissue, mm²", "Nuclei", "Nuclei per mm²"]
    assert "a.tif: cannot be read" in page


def test_numbers_are_those_of_the_table(slide_path, whole):
    record, rows = json.loads((whole / "slide.json").read_text()), table(whole)
    with open_slide(slide_path) as slide:
        mask = tissue_mask(read_overview(slide).at_mask())
        # Of the last pixels, what the slide covers.
        down, across = (
            np.minimum((np.arange(pixels) + 1) * 0.016, length / 1000) - np.arange(pixels) * 0.016
            for pixels, length in zip(mask.shape, (slide.height_um, slide.width_um), strict=True)
        )
    assert record["nuclei"] == len(rows)
    assert record["tissue_mm2"] == pytest.approx(down @ mask @ across, abs=1e-4)
    assert record["nuclei_per_mm2"] == pytest.approx(len(rows) / record["tissue_mm2"], rel=5e-3)
    areas = np.array([float(row["area_um2"]) for row in rows])
    assert record["mean_area_um2"] == pytest.approx(areas.mean(), rel=1e-3)
    for kind in TYPES:
        mine = [row["type"] == kind for row in rows]
        assert record["types"][kind]["nuclei"] == sum(mine)
        assert record["types"][kind]["share"] == pytest.approx(np.mean(mine), abs=1e-4)
    assert record["fields"] == {"nuclei": 12}
    assert record["key"]["number_of_views"] == 1


def test_a_generator_gives_the_same_nuclei_field_by_field(slide_path, whole, model, tmp_path, monkeypatch):
    again = []

    def counted(image, instances, table, mpp):
        again.extend(table.id.tolist())
        return measured_nuclei(image, instances, table, mpp=mpp)

    monkeypatch.setattr(merge, "measured_nuclei", counted)
    with open_slide(slide_path) as slide:
        fields = list(find_nuclei_on_slide(slide, load_detector(model, device="cpu"), tmp_path))
    order = [field[::-1] for field, _ in fields]
    assert order == sorted(set(order))
    found = np.concatenate([np.column_stack((n.table.id, n.table.x, n.table.y)) for _, n in fields])
    expected = [[float(row[name]) for name in ("id", "x", "y")] for row in table(whole)]
    assert 3 < len(again) < 100  # of those that lost pixels, and no others
    np.testing.assert_allclose(found + np.array([0, 0.5, 0.5]), expected, atol=0.006)


def test_what_is_not_for_nuclei_is_refused_in_a_line(slide_path, model, tmp_path):
    with pytest.raises(UsageError, match=r"--also parquet: .* task nuclei; there is geojson\.gz, emb"):
        run(slide_path, tmp_path, model, also=("parquet",))
    with pytest.raises(UsageError, match="--views 2: models of the task nuclei take no more than 1"):
        run(slide_path, tmp_path, model, views=2)
    assert not (tmp_path / "slide").exists()


@pytest.mark.slow
def test_workers_give_the_same_bytes(slide_path, whole, model, tmp_path, monkeypatch):
    command = ["slides", slide_path, "--output", tmp_path, "--weights", model, "--workers", "2"]
    assert main([str(part) for part in command]) == 0
    assert contents(tmp_path / "slide") == contents(whole)


@pytest.fixture(scope="module")
def token_model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tokens", stage={"heads": [*heads(), token_head()]})


EMBEDDINGS = ("embeddings.parquet", "embeddings.h5ad")


def vectors(folder):
    rows = pytest.importorskip("pyarrow.parquet").read_table(folder / "embeddings.parquet")
    assert rows["id"].to_pylist() == [int(row["id"]) for row in table(folder)]
    return np.array(rows["embedding"].to_pylist(), np.float16)


def test_a_flat_image_has_the_embeddings_of_softctm_nuclei(slide_path, token_model, tmp_path):
    anndata = pytest.importorskip("anndata")
    save(tifffile.imread(slide_path), tmp_path / "in" / "slide.png")
    command = ["nuclei", tmp_path / "in", "--output", tmp_path / "flat", "--weights", token_model]
    command += ["--also", "embeddings.parquet", "--device", "cpu"]
    assert main([str(part) for part in command]) == 0
    run(slide_path, tmp_path, token_model, also=EMBEDDINGS)
    found = vectors(tmp_path / "slide")
    assert len(np.unique(found, axis=0)) > 300
    # Nuclei that lost pixels to a neighbor's keep the vector of the field that they were taken from.
    np.testing.assert_array_equal(found, vectors(tmp_path / "flat" / "slide"))
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "slide" / "embeddings.h5ad").X, found)
    with open_slide(slide_path) as slide:
        detector = load_detector(token_model, device="cpu")
        fields = list(find_nuclei_on_slide(slide, detector, tmp_path / "again", embeddings=True))
    np.testing.assert_array_equal(np.concatenate([nuclei.embeddings for _, nuclei in fields]), found)


def test_embeddings_are_asked_for_before_and_may_be_left_out_afterwards(
    slide_path, token_model, tmp_path, monkeypatch
):
    run(slide_path, tmp_path / "without", token_model)
    with pytest.raises(SlideError, match=r"another choice of embeddings; take another .*--overwrite"):
        run(slide_path, tmp_path / "without", token_model, also=("embeddings.parquet",))
    run(slide_path, tmp_path / "with", token_model, also=("embeddings.parquet",))
    folder = tmp_path / "with" / "slide"
    before = contents(folder)
    assert before == contents(tmp_path / "without" / "slide")
    with monkeypatch.context() as patched:
        patched.setattr("softctm.jobs.slides.nuclei.fields.field_nuclei", None)  # nothing is computed again
        run(slide_path, tmp_path / "with", token_model)
        run(slide_path, tmp_path / "with", token_model, also=EMBEDDINGS)
    assert (folder / "embeddings.h5ad").is_file()
    assert contents(folder) == before
    assert json.loads((folder / "slide.json").read_text())["options"]["also"] == list(EMBEDDINGS)
    run(slide_path, tmp_path / "with", token_model, overwrite=True)
    assert not (folder / "embeddings.parquet").exists()
    assert "choice_of_embeddings" not in json.loads((folder / "slide.json").read_text())["key"]


def test_embeddings_that_cannot_be_made_of_slides_are_refused_first(
    slide_path, model, token_model, tmp_path, monkeypatch
):
    with pytest.raises(ModelError, match="gives no tokens to make embeddings of"):
        run(slide_path, tmp_path, model, also=("embeddings.parquet",))
    monkeypatch.setitem(slide_formats._LIBRARIES, "h5ad", ("no_such_library",))
    with pytest.raises(MissingPackageError, match="no_such_library is not installed"):
        run(slide_path, tmp_path, token_model, also=("embeddings.h5ad",))
    assert not (tmp_path / "slide").exists()
