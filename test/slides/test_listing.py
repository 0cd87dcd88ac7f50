"""Which slides a user means."""

import json
from pathlib import Path

import pytest

from softctm.errors import InputError
from softctm.slides import listing
from softctm.slides.identity import slide_identity
from softctm.slides.listing import find_slides


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def paths(found, folder):
    return [slide.path.relative_to(folder).as_posix() for slide in found.slides]


def test_folders_are_searched_whatever_the_case_of_a_suffix(tmp_path):
    touch(tmp_path, "b.SVS", "a.ndpi", "sub/c.Tiff", "photo.JPEG", "notes.txt", ".hidden.svs", "d.ome.tif")
    found = find_slides([tmp_path])
    assert paths(found, tmp_path) == ["a.ndpi", "b.SVS", "d.ome.tif", "photo.JPEG", "sub/c.Tiff"]
    (line,) = found.passed_over
    assert line.startswith(f"{tmp_path / 'notes.txt'}: is no slide by its name")


def test_companions_belong_to_their_slide(tmp_path):
    touch(tmp_path, "m.mrxs", "m/Slidedat.ini", "m/Data0000.dat", "m/Index.dat")
    touch(tmp_path, "v/h.vms", "v/h_tile0.jpg", "v/h_map.jpg", "v/h.opt")
    found = find_slides([tmp_path])
    assert paths(found, tmp_path) == ["m.mrxs", "v/h.vms"]
    assert found.passed_over == ()


def test_dicom_folders_are_slides_by_series(tmp_path, monkeypatch):
    touch(tmp_path, "one/1.dcm", "one/2.DCM", "two/1.dcm", "two/2.dcm", "two/3.dcm")
    series = {"one/1.dcm": "a", "one/2.DCM": "a", "two/1.dcm": "b", "two/2.dcm": "c", "two/3.dcm": "b"}
    monkeypatch.setattr(listing, "_series_of", lambda file: series[file.relative_to(tmp_path).as_posix()])
    found = find_slides([tmp_path])
    assert paths(found, tmp_path) == ["one", "two/1.dcm", "two/2.dcm"]
    assert [slide.name for slide in found.slides] == ["one", "1", "2"]


def test_a_list_names_slides_with_their_resolutions_and_regions(tmp_path):
    touch(tmp_path, "a.svs")
    table = tmp_path / "list.CSV"
    table.write_text("\ufeffpath, mpp,region\na.svs,0.25,\n/else/b.svs,,r.geojson\n\nc.svs,,\n")
    first, second, third = find_slides([table], mpp=0.5, region=Path("all.geojson")).slides
    assert (first.path, first.mpp, first.region) == (tmp_path / "a.svs", 0.25, Path("all.geojson"))
    assert (second.path, second.mpp, second.region) == (Path("/else/b.svs"), 0.5, tmp_path / "r.geojson")
    assert third.name == "c"


@pytest.mark.parametrize("content", ["path;mpp\na.svs;0,25\n", "path\tmpp\na.svs\t0.25\n"])
def test_a_list_may_be_as_spreadsheets_write_it_where_decimals_have_commas(content, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text(content)
    (slide,) = find_slides([table]).slides
    assert (slide.path, slide.mpp) == (tmp_path / "a.svs", 0.25)


def test_each_slide_has_a_name_of_its_own_and_is_taken_once(tmp_path):
    touch(tmp_path, "a/x.svs", "a/x.tif", "b/x.svs", "b/y.svs", "c/b/y.svs", "z.svs")
    found = find_slides([tmp_path, tmp_path / "z.svs"])
    names = [slide.name for slide in found.slides]
    assert names[:3] == ["a-x.svs", "x.tif", "b-x.svs"]
    assert len(set(names)) == 6
    assert names[-1] == "z"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file,mpp\na,1\n", "no column path, its first line names file, mpp; begin it with path"),
        ("", "no column path, its first line is empty; begin it with path,mpp,region or path alone"),
        ("path,mpp,color\na,1,red\n", "knows no column color"),
        ("path,mpp\na,coarse\n", "line 2: mpp is coarse, not µm per pixel from 0.05 to 1"),
        ("path,mpp\na,0.25\nb,nan\n", "line 3: mpp is nan, not µm per pixel"),
        ("path,mpp\na,250\n", "line 2: mpp is 250, not µm per pixel"),
        ("path,mpp\n,0.5\n", "line 2: has no path"),
        ("path\nhe, 1.svs\n", "line 2: holds ' 1.svs' beyond its 1 column; put what holds a comma in quotes"),
        ("path\na\nb/../a\n", "line 3: names .*a again, as line 2"),
        ("path,region\na,r1\nb,r1\n\n./a,r2\n", "line 5: names .*a again, as line 2"),
        ("path\n", "holds no slide"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(content, words, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text(content)
    with pytest.raises(InputError, match=rf"list\.csv.*{words}"):
        find_slides([table])


def test_rows_that_a_spreadsheet_left_empty_are_passed_over(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,mpp\n,\na.svs,0.25,\n,\n")
    (slide,) = find_slides([table]).slides
    assert (slide.path, slide.mpp) == (tmp_path / "a.svs", 0.25)


@pytest.mark.parametrize("order", [1, -1])
def test_what_a_list_says_holds_where_the_slide_is_named_again(order, tmp_path):
    touch(tmp_path, "a.svs", "b.svs")
    table = tmp_path / "list.csv"
    table.write_text("path,mpp,region\na.svs,0.25,r.geojson\n")
    inputs = [table, tmp_path, tmp_path / "a.svs"][::order]
    slides = {slide.name: slide for slide in find_slides(inputs, mpp=0.5).slides}
    assert (slides["a"].mpp, slides["a"].region) == (0.25, tmp_path / "r.geojson")
    assert (slides["b"].mpp, slides["b"].region) == (0.5, None)
    assert len(slides) == 2


def test_lists_that_contradict_each_other_are_named(tmp_path):
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("path,mpp\na.svs,0.25\n")
    second.write_text(f"path,mpp\n../{tmp_path.name}/a.svs,0.5\n")
    with pytest.raises(
        InputError, match=r"second\.csv: gives .*a\.svs another mpp or region than a list before"
    ):
        find_slides([first, second])
    second.write_text("path,mpp\na.svs,0.25\n")
    assert len(find_slides([first, second]).slides) == 1


def test_a_slide_is_taken_once_by_whatever_way_it_is_named(tmp_path, monkeypatch):
    touch(tmp_path, "s/a.svs", "s/t/b.svs")
    (tmp_path / "s/t/back").symlink_to(tmp_path / "s")
    (tmp_path / "link").symlink_to(tmp_path / "s")
    inputs = [tmp_path / "s", tmp_path / "s/t/../a.svs", tmp_path / "link", tmp_path / "link/a.svs"]
    assert [slide.name for slide in find_slides(inputs).slides] == ["a", "b"]
    # Results are known again, too.
    key = {"slide": slide_identity(tmp_path / "link/a.svs")}
    touch(tmp_path, "out/a.svs/slide.json")
    (tmp_path / "out/a.svs/slide.json").write_text(json.dumps({"key": key}))
    monkeypatch.chdir(tmp_path / "s/t")
    (slide,) = find_slides([Path("../a.svs")], output=tmp_path / "out").slides
    assert slide.name == "a.svs"


def test_a_slide_that_is_a_link_keeps_its_own_name(tmp_path):
    touch(tmp_path, "scan.svs")
    (tmp_path / "patient.svs").symlink_to("scan.svs")
    assert [slide.name for slide in find_slides([tmp_path]).slides] == ["patient", "scan"]


@pytest.mark.parametrize("name", [".", "..", "../series"])
def test_a_folder_of_dicom_files_has_a_name_whatever_it_is_called(name, tmp_path, monkeypatch):
    touch(tmp_path, "series/1.dcm", "series/sub/notes.txt")
    monkeypatch.setattr(listing, "_series_of", lambda file: "a")
    monkeypatch.chdir(tmp_path / ("series/sub" if name == ".." else "series"))
    (slide,) = find_slides([Path(name)], output=tmp_path / "out").slides
    assert slide.name == "series"


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no slide"):
        find_slides([tmp_path])
    with pytest.raises(InputError, match=r"gone\.svs: no such file or folder"):
        find_slides([tmp_path / "gone.svs"])


@pytest.mark.parametrize(
    "files",
    [
        ["a.svs", "a.tif", "a.svs.tif"],
        ["A/s/x.svs", "a/s/x.svs", "x.svs"],
        ["x-y/z/s.svs", "x/y/z/s.svs"],
        [f"{folder * 150}/{'ä' * 100}.svs" for folder in "xyz"],
        ["cohort.csv.svs", "cohort.html.svs", "CoHort.csv.tif"],
    ],
)
def test_no_two_slides_share_a_name_nor_take_the_tables(files, tmp_path):
    touch(tmp_path, *files)
    found = find_slides([tmp_path / file for file in files])
    names = [slide.name.lower() for slide in found.slides]
    assert len({*names, "cohort.csv", "cohort.html"}) == len(files) + 2
    for name in names:
        (tmp_path / "out" / name).mkdir(parents=True)
    assert len(find_slides([tmp_path / file for file in files], output=tmp_path / "out").slides) == len(files)


def test_a_folder_that_cannot_be_read_is_passed_over(tmp_path, monkeypatch):
    touch(tmp_path, "a.svs", "lost+found/b.svs")
    look = Path.iterdir

    def iterdir(folder):
        if folder.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(folder))
        return look(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found = find_slides([tmp_path])
    assert paths(found, tmp_path) == ["a.svs"]
    assert found.passed_over == (
        f"{tmp_path / 'lost+found'}: cannot be looked into (Permission denied); check its permissions",
    )


def test_a_slides_results_are_no_slides(tmp_path):
    touch(
        tmp_path,
        "a.svs",
        "out/cohort.csv",
        "out/a/slide.json",
        "out/a/overview.png",
        "b/.state/key.json",
        "b/o.png",
    )
    found = find_slides([tmp_path])
    assert paths(found, tmp_path) == ["a.svs"]
    assert any("out/a: holds a slide's results" in line for line in found.passed_over)
    named = find_slides([tmp_path / "b" / "o.png"])
    assert paths(named, tmp_path) == ["b/o.png"]


def test_results_keep_their_name_when_the_cohort_grows(tmp_path):
    touch(tmp_path, "p1/he.svs", "p2/he.svs", "p3/he.svs")
    out = tmp_path / "out"

    def names(*folders):
        slides = [tmp_path / folder / "he.svs" for folder in folders]
        return [slide.name for slide in find_slides(slides, output=out).slides]

    def results(name, folder, file="slide.json"):
        key = {"slide": {"path": str(tmp_path / folder / "he.svs")}}
        touch(out, f"{name}/{file}")
        (out / name / file).write_text(json.dumps({"key": key} if file == "slide.json" else key))

    assert names("p1") == ["he"]
    results("he", "p1")
    assert names("p1", "p2") == ["he", "p2-he.svs"]
    results("p2-he.svs", "p2", ".state/key.json")
    assert names("p3", "p2", "p1") == ["p3-he.svs", "p2-he.svs", "he"]
    # A folder of another slide's results is nobody's.
    assert names("p2") == ["p2-he.svs"]
    assert names("p3") == ["he"]


def test_results_beside_a_slide_do_not_go_into_its_data(tmp_path):
    touch(tmp_path, "s.mrxs", "s/Slidedat.ini", "t.svs")
    (first, second) = find_slides([tmp_path], output=tmp_path).slides
    assert not (tmp_path / first.name).exists()
    assert second.name == "t"
    assert [slide.name for slide in find_slides([tmp_path], output=tmp_path / "out").slides] == ["s", "t"]
