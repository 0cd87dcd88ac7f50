"""The job on a slide: the cells of the whole slide at once, however the work is cut, stopped or spread."""

import contextlib
import csv
import gzip
import importlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from math import nan
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from fake_detector import FakeDetector
from scipy import ndimage
from slide_files import reduced, tissue_picture, write_tiff

from softctm.commands.report import is_own_page
from softctm.errors import DeviceError, InputError, OutputError, PartialResultError, SlideError, UsageError
from softctm.inference.detector_options import DetectorOptions
from softctm.jobs.output_lock import output_lock
from softctm.jobs.slides import stretches as slide_stretches
from softctm.jobs.slides.cells import plan as cell_plan
from softctm.jobs.slides.cohort import run_cohort
from softctm.jobs.slides.engine import LocalEngine, SlideWork
from softctm.jobs.slides.findings import find_cells_on_slide
from softctm.jobs.slides.options import SlideOptions
from softctm.jobs.slides.plan import Stretch
from softctm.jobs.slides.state import SlideState
from softctm.jobs.slides.tasks import RESULT_FILES, SLIDE_TASKS
from softctm.progress import Task
from softctm.slides import open_slide
from softctm.slides.region import Region
from softctm.storage import files

FAST = DetectorOptions(quality="fast")
COMMAND = Path(__file__).with_name("slides_with_fake.py")
SOURCES = Path(__file__).parents[2] / "src"
RESULTS = ("cells.geojson", "cells.csv", "tissue.tif", "overview.png")


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory):
    """0.9 × 0.5 mm: 6 × 3 cell fields, 2 × 1 tissue fields."""
    picture = tissue_picture(1900, 3600)
    return write_tiff(tmp_path_factory.mktemp("slide") / "slide.tif", [picture, reduced(picture, 4)])


@pytest.fixture(scope="module")
def small_path(tmp_path_factory):
    """0.5 × 0.3 mm: 4 × 2 cell fields, 1 tissue field; for what is run again and again."""
    picture = tissue_picture(1300, 2200, seed=1)
    return write_tiff(tmp_path_factory.mktemp("small") / "slide.tif", [picture])


def run(inputs, output, **options):
    inputs = inputs if isinstance(inputs, list) else [inputs]
    detector = FakeDetector()
    chosen = SlideOptions(**{"quality": "fast", **options})
    quality = chosen.chosen_quality
    detector.views, detector.model = quality.views, detector.model.with_networks("cells", quality.networks)
    result = run_cohort(inputs, output, chosen, lambda _: LocalEngine(detector, chosen))
    return result, detector


@pytest.fixture(scope="module")
def whole(slide_path, tmp_path_factory):
    """The results of one run over the whole slide."""
    folder = tmp_path_factory.mktemp("whole")
    run(slide_path, folder)
    return folder / "slide"


def contents(folder, names=RESULTS):
    return {name: (folder / name).read_bytes() for name in names}


def table(folder):
    with (folder / "cells.csv").open() as file:
        return list(csv.DictReader(file))


def places(rows):
    return [(float(row["x"]), float(row["y"])) for row in rows]


def test_the_cells_are_those_of_the_whole_slide_looked_at_at_once(slide_path, whole):
    with open_slide(slide_path) as slide:
        width, height = slide.size_at(0.2)
        image = slide.read(-64, -64, width + 1200, height + 1200, 0.2)
        tissue_image = slide.read(0, 0, 1536, 1024, 0.8)
        map_width, map_height = slide.size_at(0.8)
    darkness = 1 - tissue_image.mean(axis=-1, dtype=np.float32) / 255
    cancer = ndimage.gaussian_filter(darkness, 5, mode="nearest", truncate=4).clip(0, 1)
    cancer = np.rint(cancer * 255).astype(np.uint8)
    foreground = 1 - image[..., 0].astype(np.float32) / 255
    blurred = ndimage.gaussian_filter(foreground, 3, mode="mirror", truncate=4)
    peaks = (blurred == ndimage.maximum_filter(blurred, 7)) & (blurred > 0.3)
    y, x = np.nonzero(peaks[64 : 64 + height, 64 : 64 + width])
    expected = {}
    for cx, cy in zip(x.tolist(), y.tolist(), strict=True):
        tissue = cancer[cy // 4, cx // 4]
        kind = "TC" if np.float32(tissue) / np.float32(255) > 0.35 else "BC"
        expected[f"{(cx + 0.5) * 0.8:.2f}", f"{(cy + 0.5) * 0.8:.2f}"] = (kind, f"{tissue / 255:.4f}")
    rows = table(whole)
    assert len(rows) > 800
    assert {(row["x"], row["y"]): (row["class"], row["tissue_probability"]) for row in rows} == expected
    assert len(rows) == len(expected)
    for row in rows:
        assert float(row["x_um"]) == pytest.approx(float(row["x"]) * 0.25, abs=0.06)
        assert 0 <= float(row["other_probability"]) <= float(row["probability"]) <= 1
    stored = tifffile.imread(whole / "tissue.tif")
    assert stored.shape == (2, map_height, map_width)
    np.testing.assert_array_equal(stored[1], cancer[:map_height, :map_width])
    assert np.abs(stored.astype(int).sum(axis=0) - 255).max() <= 1


def test_tissue_without_cells_as_high_as_a_stretch_takes_no_results(tmp_path, monkeypatch):
    monkeypatch.setattr(cell_plan, "STRETCH", {"tissue": 1, "cells": 1})
    bare = np.full((1800, 1300, 3), (235, 190, 215), np.uint8)
    picture = np.concatenate((tissue_picture(1300, 1300, seed=1), bare))
    path = write_tiff(tmp_path / "half.tif", [picture])
    alone = write_tiff(tmp_path / "bare.tif", [bare])
    run([path, alone], tmp_path / "out")
    assert len(table(tmp_path / "out" / "half")) > 50
    assert table(tmp_path / "out" / "bare") == []


def test_cells_come_in_row_major_order_of_fields(whole):
    fields = [(int(y // (896 * 0.8)), int(x // (896 * 0.8))) for x, y in places(table(whole))]
    assert fields == sorted(fields)
    for _, group in itertools.groupby(
        zip(fields, places(table(whole)), strict=True), key=lambda item: item[0]
    ):
        inside = [(y, x) for _, (x, y) in group]
        assert inside == sorted(inside)


@pytest.mark.parametrize("sides", [{"tissue": 1, "cells": 1}, {"tissue": 2, "cells": 3}])
def test_nothing_depends_on_the_size_of_stretches(sides, slide_path, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(cell_plan, "STRETCH", sides)
    run(slide_path, tmp_path)
    assert contents(tmp_path / "slide") == contents(whole)


@pytest.mark.parametrize(("processors", "callers"), [(1, 1), (16, 5)])
def test_nothing_depends_on_the_number_of_threads(
    processors, callers, slide_path, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(slide_stretches, "available_processors", lambda: processors)
    monkeypatch.setattr(FakeDetector, "callers", callers)
    run(slide_path, tmp_path)
    assert contents(tmp_path / "slide") == contents(whole)


def test_nothing_depends_on_the_order_of_stretches(slide_path, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(cell_plan, "STRETCH", {"tissue": 1, "cells": 2})
    in_order = slide_stretches.StretchWork.run

    def backwards(self, stretches, field_done):
        return in_order(self, stretches[::-1], field_done)

    monkeypatch.setattr(slide_stretches.StretchWork, "run", backwards)
    run(slide_path, tmp_path)
    assert contents(tmp_path / "slide") == contents(whole)


def square_region(folder, x0, y0, x1, y1, hole=None):
    def ring(x0, y0, x1, y1):
        return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]

    rings = [ring(x0, y0, x1, y1)] + ([ring(*hole)] if hole else [])
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": rings}, "properties": {}}
    path = folder / "region.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


@pytest.mark.parametrize(
    ("box", "hole"),
    [
        ((0, 0, 3600, 1900), None),
        ((700.0, 700.0, 1450.0, 1440.0), None),  # its borders run near those of cores, at 716.8 and 1433.6
        ((1500.5, 300.25, 3000, 1700), (1800, 900, 2500, 1400)),
        ((-500, -500, 1500, 1000), None),
    ],
)
def test_a_region_gives_the_cells_that_the_whole_slide_has_there(box, hole, slide_path, whole, tmp_path):
    run(slide_path, tmp_path, region=square_region(tmp_path, *box, hole))

    def inside(place):
        x, y = place
        outside_hole = hole is None or not (hole[0] < x < hole[2] and hole[1] < y < hole[3])
        return box[0] <= x <= box[2] and box[1] <= y <= box[3] and outside_hole

    lines = (whole / "cells.csv").read_text().splitlines(keepends=True)
    expected = [line for line in lines[1:] if inside([float(part) for part in line.split(",")[:2]])]
    assert len(expected) > 50
    assert (tmp_path / "slide" / "cells.csv").read_text() == lines[0] + "".join(expected)


def test_a_region_looks_only_at_fields_that_it_needs(slide_path, tmp_path):
    _, detector = run(slide_path, tmp_path, region=square_region(tmp_path, 1600, 1000, 1700, 1100))
    assert detector.calls == {"tissue": 2, "cells": 2}  # one each to measure the time


class Stopped(BaseException):
    """The process's end, as far as the job can tell."""


def test_a_run_stopped_at_any_write_goes_on_to_the_same_bytes(small_path, tmp_path, monkeypatch):
    monkeypatch.setattr(cell_plan, "STRETCH", {"tissue": 1, "cells": 2})
    run(small_path, tmp_path / "whole")
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
            run(small_path, folder)
        except Stopped:
            pass
        else:
            break
        left[0] = 10**6
        run(small_path, folder)
        assert contents(folder / "slide") == expected
        assert not list(folder.rglob("*.tmp"))
    assert writes > 10


def test_what_is_done_is_not_computed_again(small_path, tmp_path):
    _, first = run(small_path, tmp_path)
    before = contents(tmp_path / "slide", (*RESULTS, "slide.json"))
    _, second = run(small_path, tmp_path)
    assert first.calls["cells"] > 5
    assert second.calls == {"tissue": 1, "cells": 1}
    assert contents(tmp_path / "slide", (*RESULTS, "slide.json")) == before
    _, third = run(small_path, tmp_path, also=("geojson.gz",))
    assert third.calls == {"tissue": 1, "cells": 1}
    compressed = (tmp_path / "slide" / "cells.geojson.gz").read_bytes()
    assert gzip.decompress(compressed) == before["cells.geojson"]
    shutil.rmtree(tmp_path / "slide" / ".state")  # to make room
    _, without = run(small_path, tmp_path, also=("geojson.gz",))
    assert without.calls == {"tissue": 1, "cells": 1}
    _, fourth = run(small_path, tmp_path, overwrite=True)
    assert fourth.calls == first.calls
    assert not (tmp_path / "slide" / "cells.geojson.gz").exists()
    (tmp_path / "slide" / "tissue.tif").unlink()
    run(small_path, tmp_path)
    assert contents(tmp_path / "slide") == {name: before[name] for name in RESULTS}


@pytest.mark.parametrize("name", ["overview.npy", "cells-*.bin"])
def test_damaged_state_is_computed_anew(name, small_path, tmp_path):
    run(small_path, tmp_path)
    before = contents(tmp_path / "slide")
    (tmp_path / "slide" / "slide.json").unlink()
    damaged = next((tmp_path / "slide" / ".state").glob(f"*/{name}"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    if damaged.suffix == ".bin":
        with pytest.raises(SlideError, match=rf"{damaged.name}: is damaged .*; run again"):
            run(small_path, tmp_path)
    run(small_path, tmp_path)
    assert contents(tmp_path / "slide") == before


def test_areas_end_where_the_slide_does(tmp_path, monkeypatch):
    """265 µm a side: 16 pixels and a half of the mask."""
    dark = np.full((1060, 1060, 3), (40, 0, 30), np.uint8)
    path = write_tiff(tmp_path / "core.tif", [dark])
    regions = {"none": None, "all": square_region(tmp_path, 0, 0, 1060, 1060)}
    larger, told = tmp_path / "larger", []
    larger.mkdir()
    monkeypatch.setattr(Task, "step", lambda _, message="": told.append(message))
    regions["larger"] = square_region(larger, -50, -50, 2000, 2000)
    for name, region in regions.items():
        run(path, tmp_path / name, region=region)
        record = json.loads((tmp_path / name / "core" / "slide.json").read_text())
        assert record["tissue_mm2"] == pytest.approx(0.265**2, abs=1e-4)
        # The detector blurs: it sees the glass beyond the border.
        assert record["cancer_area"]["mm2"] == pytest.approx(0.265**2, abs=5e-4)
        assert record["outside_cancer_area"]["mm2"] == pytest.approx(0, abs=5e-4)
        assert told[-1].endswith(" tumor cells, 0.07 mm² of tissue")


def test_results_of_something_else_are_never_taken_for_these(small_path, tmp_path):
    folder = tmp_path / "out"
    path = tmp_path / "slide.tif"
    path.write_bytes(small_path.read_bytes())
    run(path, folder)
    for options, words in (
        ({"mpp": 0.26}, "mpp"),
        ({"region": square_region(tmp_path, 0, 0, 900, 900)}, "region"),
        ({"views": 2}, r"number of views \(--quality or --views\)"),
        ({"quality": "full"}, "--quality"),
        ({"quality": "full", "mpp": 0.26}, "--quality and another mpp"),
    ):
        with pytest.raises(SlideError, match=f"holds results of another {words}; take another .*--overwrite"):
            run(path, folder, **options)
    other = path.read_bytes()
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1000))
    with pytest.raises(SlideError, match="another slide"):
        run(path, folder)
    path.write_bytes(other + b"x")
    run(path, folder, overwrite=True)


@pytest.mark.parametrize("views", [2, 4])
def test_a_detector_of_other_views_does_not_go_on_with_the_results_of_one(views, small_path, tmp_path):
    detector = FakeDetector()
    with open_slide(small_path) as slide:
        list(find_cells_on_slide(slide, detector, tmp_path))
        asked = dict(detector.calls)
        list(find_cells_on_slide(slide, detector, tmp_path))
        assert detector.calls["cells"] - asked["cells"] <= 1  # the one that is timed
        detector.views = views
        with pytest.raises(SlideError, match="another number of views"):
            next(find_cells_on_slide(slide, detector, tmp_path))


def test_what_another_key_left_or_still_writes_is_not_taken_for_this_ones(tmp_path):
    stretch = Stretch("cells", 0, 0, ((0, 0),))
    earlier = SlideState(tmp_path, {"views": 1})
    earlier.begin()
    earlier.write(stretch, b"first")
    # An interrupted removal: the key is gone, a stretch is not.
    (tmp_path / ".state" / "key.json").unlink()
    state = SlideState(tmp_path, {"views": 2})
    state.begin()
    assert not state.is_done(stretch)
    # A worker of an earlier run that has not been told.
    with contextlib.suppress(OutputError):
        earlier.write(stretch, b"late")
    assert not state.is_done(stretch)
    state.begin(overwrite=True)
    assert not earlier.is_done(stretch)


def test_files_that_it_did_not_make_are_not_replaced(small_path, tmp_path):
    listed, out = tmp_path / "cohort.csv", tmp_path / "slide"
    listed.write_text(f"path,mpp\n{small_path},0.25\n")
    with pytest.raises(OutputError, match=r"cohort\.csv is there already and `softctm slides` did"):
        run(listed, tmp_path)
    listed = listed.rename(tmp_path / "list.csv")
    out.mkdir()
    (out / "cells.csv").write_text("mine")
    (out / "cells.qpdata").write_text("mine too")
    with pytest.raises(SlideError, match=r"cells\.csv is there already"):
        run(listed, tmp_path)
    # Nor do they end the run for other slides, nor does a file where a slide's folder would be.
    other = write_tiff(tmp_path / "other.tif", [np.full((900, 1200, 3), 243, np.uint8)])
    (tmp_path / "third").write_text("mine")
    third = write_tiff(tmp_path / "third.tif", [np.full((900, 1200, 3), 243, np.uint8)])
    (tmp_path / "fourth").mkdir()
    (tmp_path / "fourth" / ".state").write_text("mine")
    fourth = write_tiff(tmp_path / "fourth.tif", [np.full((900, 1200, 3), 243, np.uint8)])
    with pytest.raises(PartialResultError, match="3 of 4 slides failed: slide, third, fourth"):
        run([small_path, third, fourth, other], tmp_path)
    assert (tmp_path / "other" / "slide.json").is_file()
    assert (out / "cells.csv").read_text() == "mine"
    run(listed, tmp_path, overwrite=True)
    assert len(table(out)) > 50
    run(listed, tmp_path)  # and goes on with its own
    assert not is_own_page(tmp_path / "cohort.html")  # `softctm report` does not take it for one of its pages
    assert (out / "cells.qpdata").read_text() == "mine too"


def test_results_in_the_input_folder_are_no_slides(small_path, tmp_path):
    shutil.copy(small_path, tmp_path / "slide.tif")
    for _ in range(2):
        result, _ = run(tmp_path, tmp_path / "results", mpp=0.25)
        assert [row.name for row in result.rows] == ["slide"]
    result, _ = run(tmp_path, tmp_path / "others", mpp=0.25)
    assert [row.name for row in result.rows] == ["slide"]
    result, _ = run(tmp_path, tmp_path, mpp=0.25)
    result, _ = run(tmp_path, tmp_path, mpp=0.25)
    assert [row.name for row in result.rows] == ["slide"]


@pytest.mark.parametrize("name", SLIDE_TASKS)
def test_every_file_of_a_task_is_among_those_that_are_removed_or_refused(name):
    maker = SLIDE_TASKS[name].maker.replace(":", ".").rpartition(".")
    task = getattr(importlib.import_module(maker[0]), maker[2])
    assert {*task.formats.values(), *task.other_files} <= set(RESULT_FILES)


def test_one_run_at_a_time(small_path, tmp_path):
    with output_lock(tmp_path), pytest.raises(OutputError, match=r"process \d+ on .* is at work in it"):
        run(small_path, tmp_path)
    run(small_path, tmp_path)


def test_a_killed_process_holds_no_lock(tmp_path):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from softctm.jobs.output_lock import output_lock\n"
        "with output_lock(Path(sys.argv[2])): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(SOURCES), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=rf"process {holder.pid} on"), output_lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
    with output_lock(tmp_path):
        pass


def test_a_generator_gives_the_same_cells_field_by_field(slide_path, whole, tmp_path):
    with open_slide(slide_path) as slide:
        fields = list(find_cells_on_slide(slide, FakeDetector(), tmp_path))
    order = [field[::-1] for field, _ in fields]
    assert order == sorted(set(order))
    found = [(f"{x:.2f}", f"{y:.2f}") for _, cells in fields for x, y in zip(cells.x, cells.y, strict=True)]
    assert found == [(row["x"], row["y"]) for row in table(whole)]
    with open_slide(slide_path) as slide:
        region = Region.read(square_region(tmp_path, 0, 0, 1500, 1500))
        with pytest.raises(SlideError, match="another region"):
            next(find_cells_on_slide(slide, FakeDetector(), tmp_path, region))


def test_glass_has_no_cells_and_that_is_a_result(tmp_path):
    path = write_tiff(tmp_path / "glass.tif", [np.full((900, 1200, 3), 243, np.uint8)])
    result, detector = run(path, tmp_path / "out", also=("parquet", "h5ad", "geojson.gz"))
    assert detector.calls == {"tissue": 1, "cells": 1}
    record = result.rows[0].record
    assert (record["tumor_cells"], record["tumor_purity"], record["tissue_mm2"]) == (0, None, 0)
    assert "holds no tissue" in record["warnings"][0]
    assert json.loads((tmp_path / "out/glass/cells.geojson").read_text()) == {
        "type": "FeatureCollection",
        "features": [],
    }
    assert table(tmp_path / "out/glass") == []
    assert (tifffile.imread(tmp_path / "out/glass/tissue.tif")[0] == 255).all()
    assert result.summary.endswith("cohort.csv: 1 of 1 slide, 0 background cells, 0 tumor cells")


def test_one_bad_slide_ends_itself_not_the_others(slide_path, tmp_path, caplog):
    inputs = tmp_path / "in"
    inputs.mkdir()
    (inputs / "a.svs").write_bytes(b"no slide at all")
    (inputs / "b.tif").symlink_to(slide_path)
    damaged = bytearray(slide_path.read_bytes())
    with tifffile.TiffFile(slide_path) as file:
        offset, count = file.pages[0].dataoffsets[80], file.pages[0].databytecounts[80]
    damaged[offset : offset + count] = b"\xaa" * count
    (inputs / "c.tif").write_bytes(damaged)
    (inputs / "readme.txt").write_text("hello")
    with pytest.raises(PartialResultError, match=r"2 of 3 slides failed: a, c; .*cohort\.csv says why"):
        run(inputs, tmp_path / "out")
    with (tmp_path / "out" / "cohort.csv").open() as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    assert [rows[name]["status"] for name in "abc"] == ["failed", "complete", "failed"]
    assert "a.svs: is not a slide" in rows["a"]["error"]
    assert "c.tif: cannot be read at level-0 pixel" in rows["c"]["error"]
    assert int(rows["b"]["tumor_cells"]) > 100
    assert "readme.txt: is no slide by its name" in caplog.text
    page = (tmp_path / "out" / "cohort.html").read_text()
    assert "c.tif: cannot be read" in page


def test_a_slide_that_goes_or_changes_in_mid_run_is_named(small_path, tmp_path, monkeypatch):
    path = tmp_path / "gone.tif"
    for action, words in (
        (Path.unlink, "is gone"),
        (lambda p: p.write_bytes(b"x"), "changed while|cannot be"),
    ):
        path.write_bytes(small_path.read_bytes())
        detector = FakeDetector()
        find = detector.find_cells

        def find_and_act(image, context, find=find, action=action, detector=detector):
            if detector.calls["cells"] == 4 and path.exists() and path.stat().st_size > 9:
                action(path)
            return find(image, context)

        detector.find_cells = find_and_act
        with pytest.raises(SlideError, match=rf"gone\.tif: .*({words})"):
            run_cohort(
                [path],
                tmp_path / "out",
                SlideOptions(overwrite=True),
                lambda _, detector=detector: LocalEngine(detector, FAST),
            )


def test_a_full_disk_ends_the_run_with_its_reason_and_it_goes_on_later(small_path, tmp_path, monkeypatch):
    fsync, left = os.fsync, [3]

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot be written .No space left on device.; make room"):
        run(small_path, tmp_path)
    monkeypatch.setattr(files.os, "fsync", fsync)
    run(small_path, tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"region": Path("none.geojson")}, r"region none\.geojson: cannot be read"),
        ({"region": (9000, 9000, 9500, 9500)}, "lies outside of the slide"),
        ({"region": (50, 50, 50, 90)}, "no polygon with an area"),
    ],
)
def test_what_cannot_be_is_one_line(options, words, small_path, tmp_path):
    if isinstance(options.get("region"), tuple):
        options = {"region": square_region(tmp_path, *options["region"])}
    with pytest.raises(SlideError, match=words) as caught:
        run(small_path, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)


def test_a_region_that_cannot_be_read_leaves_the_tables_as_they_are(small_path, tmp_path):
    run(small_path, tmp_path)
    before = (tmp_path / "cohort.csv").read_bytes()
    for region in (tmp_path / "typo.geojson", square_region(tmp_path, 50, 50, 50, 90)):
        with pytest.raises(SlideError, match=f"^region {region}: "):
            run(small_path, tmp_path, region=region)
        assert (tmp_path / "cohort.csv").read_bytes() == before


def test_options_that_cannot_be_are_refused(tmp_path):
    for options, words in (
        ({"workers": 0}, "--workers must be at least 1"),
        ({"workers": 2, "scheduler": "tcp://x"}, "give one of them"),
        ({"quality": "best"}, "--quality must be one of"),
        *(({"mpp": mpp}, "--mpp must be µm per pixel from 0.05 to 1") for mpp in (0.0, -0.5, 0.01, 5.0, nan)),
        ({"also": ("pdf",)}, r"--also must be one of geojson\.gz, parquet, h5ad, emb.*, not pdf"),
    ):
        with pytest.raises(UsageError, match=words):
            SlideOptions(**options)
    with pytest.raises(InputError):
        run(tmp_path / "none", tmp_path / "out")


def start(slide, output, *options, slowness="0"):
    return subprocess.Popen(
        [sys.executable, COMMAND, "slides", slide, "--output", output, *options],
        env=os.environ | {"PYTHONPATH": str(SOURCES), "FAKE_SLOWNESS": slowness},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.long
def test_killed_thirty_times_and_the_same_bytes(slide_path, whole, tmp_path):
    random, kills = np.random.default_rng(0), 0
    while True:
        process = start(slide_path, tmp_path, slowness="0.05")
        try:
            # From before the first import to after the last field, so that every step is hit.
            process.wait(timeout=random.uniform(0.5, 6))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, process.communicate()[1]
        process.communicate()
        assert contents(tmp_path / "slide") == contents(whole)
        if kills >= 30:
            return
        shutil.rmtree(tmp_path / "slide")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_workers_give_the_same_bytes(workers, slide_path, whole, tmp_path):
    process = start(slide_path, tmp_path, "--workers", str(workers))
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert contents(tmp_path / "slide") == contents(whole)
    assert (f"{workers} workers on cpu" in output) == (workers > 1)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_stretch_only(slide_path, whole, tmp_path):
    process = start(slide_path, tmp_path, "--workers", "2", slowness="0.5")
    state, deadline = tmp_path / "slide" / ".state", time.monotonic() + 300
    while not list(state.glob("*/tissue-*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    children = subprocess.run(
        ["pgrep", "-g", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    workers = [pid for pid in children if _is_worker(pid)]
    assert workers
    os.kill(int(workers[0]), signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert contents(tmp_path / "slide") == contents(whole)


class Client:
    """What the engine needs of Dask's client; `submit` computes at once."""

    def __init__(self, error=None):
        self.error, self.sent = error, []

    def submit(self, function, *arguments, key):
        self.sent.append(arguments)

        def result():
            if self.error:
                raise self.error
            return {}

        return SimpleNamespace(key=key, result=result)

    def cancel(self, futures):
        pass


def on_cluster(client, path, monkeypatch):
    cluster = importlib.import_module("softctm.jobs.slides.cluster")
    monkeypatch.setattr(cluster.distributed, "as_completed", iter)
    engine = cluster.ClusterEngine.__new__(cluster.ClusterEngine)
    engine._client, engine._setup = client, None
    engine.facts = LocalEngine(FakeDetector(), FAST).facts
    with open_slide(path) as slide:
        mask = np.ones(slide.size_at(16)[::-1], bool)
        plan = engine.facts.task.plan(slide, mask, None)
        work = SlideWork(Path("in/slide.tif"), None, Path("out/slide"), {})
        return engine.run(work, slide, plan, lambda kind: None)


def test_workers_are_sent_paths_that_hold_in_every_folder(small_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client = Client()
    on_cluster(client, small_path, monkeypatch)
    assert len(client.sent) > 1
    for _, work, *_ in client.sent:
        assert (work.path, work.folder) == (tmp_path / "in" / "slide.tif", tmp_path / "out" / "slide")


def test_a_lost_scheduler_ends_the_run_with_a_line(small_path, monkeypatch):
    client_module = importlib.import_module("distributed.client")
    lost = client_module.FutureCancelledError("cells-0000-0000", "scheduler-connection-lost")
    with pytest.raises(DeviceError, match="the scheduler was lost; start it again"):
        on_cluster(Client(lost), small_path, monkeypatch)


def _is_worker(pid):
    """Whether a process is one that computes, not the nanny's helpers."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"spawn_main" in words


def test_dask_is_imported_only_when_asked_for(slide_path, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import slides_with_fake\n"
        "from softctm.cli import main\n"
        "assert main(['slides', sys.argv[2], '--output', sys.argv[3]]) == 0\n"
        "assert not {'dask', 'distributed', 'torch', 'pandas', 'pyarrow'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(COMMAND.parent), str(slide_path), str(tmp_path)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(SOURCES)}, capture_output=True)
