"""`softctm nuclei` with a network whose nuclei are drawn by color, so that the answer is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tifffile
from color_nuclei import RADIUS, SIZE, STRIDE, TOKENS, drawn, heads, save, token_head, write_model
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from softctm import load_detector
from softctm.cli import main
from softctm.datasets.nuclei.results import Results
from softctm.errors import ModelError, PairError, UsageError
from softctm.inference import nuclei_image
from softctm.inference.nuclei_image import find_nuclei
from softctm.jobs.nuclei import images as nuclei_job
from softctm.storage.files import sha256_of
from softctm.writers import slide_formats


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def run(*arguments: object) -> int:
    return main(["nuclei", *map(str, arguments), "--device", "cpu"])


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "nuclei.csv").read_text().splitlines()))


def places(folder: Path) -> list[tuple[float, float]]:
    return sorted((float(row["x"]), float(row["y"])) for row in table(folder))


def lattice(height: int, width: int, step: int = 31) -> list[tuple[float, float]]:
    """Centers of disks that do not touch; with fields of 256 that share 64 they lie everywhere at borders."""
    return [(float(x), float(y)) for y in range(15, height - 10, step) for x in range(15, width - 10, step)]


def test_a_killed_run_is_gone_on_with(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(drawn(200, 200, [(90.0, 90.0)]), tmp_path / "in" / "one.png")
    command = (tmp_path / "in", "--output", tmp_path / "out", "--weights", model)

    class Killed(BaseException):
        """Nothing is told of it, and nothing written after it."""

    def find(*_: object) -> None:
        (tmp_path / "out" / "one").mkdir()
        (tmp_path / "out" / "one" / "nuclei.csv").write_text("half of it")
        stored = (tmp_path / "out" / "run.json").read_bytes()
        monkeypatch.setattr(nuclei_job, "write_json_atomically", lambda *_, **__: None)
        assert json.loads(stored)["status"] == "unfinished"
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(nuclei_job, "_find", find)
        with pytest.raises(Killed):
            run(*command)
    monkeypatch.undo()
    assert run(*command) == 0
    assert len(table(tmp_path / "out" / "one")) == 1


def test_a_large_image_has_every_nucleus_once(tmp_path: Path, model: Path) -> None:
    centers = lattice(500, 700)
    save(drawn(500, 700, centers), tmp_path / "in" / "large.png")
    assert run(tmp_path / "in", "--output", tmp_path / "out", "--weights", model) == 0
    folder = tmp_path / "out" / "large"
    np.testing.assert_allclose(places(folder), sorted(centers), atol=0.05)
    # The map is what was drawn, to the pixel, and its numbers are the table's.
    instances = tifffile.imread(folder / "instances.tif")
    rows, columns = np.mgrid[:500, :700] + 0.5
    expected = np.zeros((500, 700), bool)
    for x, y in centers:
        expected |= (rows - y) ** 2 + (columns - x) ** 2 < RADIUS**2
    assert ((instances > 0) == expected).mean() > 0.999
    kinds: dict[int, set[str]] = {0: set(), 1: set()}
    for row in table(folder):
        x, y = float(row["x"]), float(row["y"])
        assert instances[int(y), int(x)] == int(row["id"])
        number = min(range(len(centers)), key=lambda i: abs(centers[i][0] - x) + abs(centers[i][1] - y))
        kinds[number % 2].add(row["type"])
    assert kinds == {0: {"neoplastic"}, 1: {"odd"}}
    features = json.loads((folder / "nuclei.geojson").read_text())["features"]
    assert len(features) == len(centers)
    assert {f["properties"]["classification"]["name"] for f in features} == {"neoplastic", "odd"}
    # What is written can be read to be scored.
    assert len(Results(tmp_path / "out").labels(0).table) == len(centers)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["images"][0]["nuclei"] == len(centers)
    assert sum(record["images"][0]["types"].values()) == len(centers)


def test_fields_give_what_one_field_gives(tmp_path: Path, model: Path) -> None:
    """The same drawing, at the origin of an image that fits into a field, and shifted in a large one."""
    centers = lattice(200, 200)
    save(drawn(200, 200, centers), tmp_path / "in" / "small.png")
    save(drawn(450, 460, [(x + 141, y + 147) for x, y in centers]), tmp_path / "in" / "shifted.png")
    assert run(tmp_path / "in", "--output", tmp_path / "out", "--weights", model) == 0
    small, shifted = places(tmp_path / "out" / "small"), places(tmp_path / "out" / "shifted")
    assert len(small) == len(centers)
    np.testing.assert_allclose(np.array(shifted) - (141, 147), small, atol=0.05)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_places_are_in_the_images_own_pixels(
    tmp_path: Path, model: Path, factor: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk of 9 px at the model's 0.25 µm has 4.5 px in an image of 0.5 µm, and 18 px in one of 0.125."""
    centers = [(x * factor, y * factor) for x, y in ((60, 60), (200, 90), (300, 330))]
    side = int(400 * factor)
    save(drawn(side, side, centers, RADIUS * factor), tmp_path / "a.png")
    mpp = 0.25 / factor
    command = (tmp_path / "a.png", "--output", tmp_path / "out", "--weights", model, "--mpp", mpp)
    assert run(*command) == 0
    told = capsys.readouterr()
    assert "--mpp" not in told.out
    coarse = "--mpp: 0.5 µm per pixel is coarser than the 0.25 that the networks know"
    assert (coarse in told.err) == (mpp == 0.5)
    np.testing.assert_allclose(places(tmp_path / "out" / "a"), sorted(centers), atol=0.6)
    area = np.pi * (RADIUS * 0.25) ** 2
    np.testing.assert_allclose(
        [float(row["area_um2"]) for row in table(tmp_path / "out" / "a")], area, rtol=0.15
    )
    instances = tifffile.imread(tmp_path / "out" / "a" / "instances.tif")
    assert instances.shape == (side, side)
    pixels = np.bincount(instances.ravel())[1:]
    np.testing.assert_allclose(pixels[pixels > 0], np.pi * (RADIUS * factor) ** 2, rtol=0.15)


def test_pixels_of_another_scale_are_those_in_which_centers_lie() -> None:
    assert nuclei_image._nearest(2, 4).tolist() == [1, 3]
    assert nuclei_image._nearest(4, 2).tolist() == [0, 0, 1, 1]
    assert nuclei_image._nearest(3, 5).tolist() == [0, 2, 4]


def test_images_without_nuclei_and_tiny_ones(tmp_path: Path, model: Path) -> None:
    images = {
        "white": np.full((300, 300, 3), 255, np.uint8),
        "black": np.zeros((300, 300, 3), np.uint8),  # all nucleus: one that fills the image
        "pixel": np.full((1, 1, 3), 200, np.uint8),
        "line": np.full((1, 70, 3), 200, np.uint8),
        "dark_line": np.zeros((1, 70, 3), np.uint8),
        "cut": drawn(12, 14, [(2.0, 3.0)]),
    }
    for name, image in images.items():
        save(image, tmp_path / "in" / f"{name}.png")
    assert run(tmp_path / "in", "--output", tmp_path / "out", "--weights", model) == 0
    counts = {name: len(table(tmp_path / "out" / name)) for name in images}
    assert {name: counts[name] for name in ("white", "pixel", "line", "dark_line", "cut")} == {
        "white": 0,
        "pixel": 0,
        "line": 0,
        "dark_line": 0,
        "cut": 1,
    }
    for name, image in images.items():
        assert tifffile.imread(tmp_path / "out" / name / "instances.tif").shape == image.shape[:2]
        document = json.loads((tmp_path / "out" / name / "nuclei.geojson").read_text())
        assert len(document["features"]) == counts[name]


def test_one_bad_image_does_not_cost_the_others(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(drawn(100, 100, [(50, 50)]), tmp_path / "in" / "good.tif")
    save(drawn(100, 100, [(50, 50)]), tmp_path / "in" / "bad.png")
    command = (tmp_path / "in", "--output", tmp_path / "out", "--weights", model)
    assert run(*command) == 0
    whole = (tmp_path / "in" / "bad.png").read_bytes()
    (tmp_path / "in" / "bad.png").write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert run(*command) == 7
    warning, last = capsys.readouterr().err.strip().splitlines()
    assert f"{tmp_path / 'in' / 'bad.png'}: cannot be decoded" in warning
    assert "1 of 2 images failed" in last
    assert places(tmp_path / "out" / "good") == [(50.0, 50.0)]
    assert not list((tmp_path / "out" / "bad").iterdir())  # nor those of the run before
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["status"], len(record["failures"])) == ("partial", 1)
    assert run(tmp_path / "in" / "bad.png", "--output", tmp_path / "other", "--weights", model) == 3


def test_kinds_of_files(tmp_path: Path, model: Path) -> None:
    image = drawn(120, 130, [(60, 60)])
    save(image, tmp_path / "in" / "lzw.tif")
    Image.fromarray(image).save(tmp_path / "in" / "packed.tiff", compression="tiff_lzw")
    tifffile.imwrite(tmp_path / "in" / "deep.tif", image.astype(np.uint16) * 257, photometric="rgb")
    tifffile.imwrite(
        tmp_path / "in" / "planes.tif",
        np.moveaxis(image.astype(np.uint16) * 257, -1, 0),
        photometric="rgb",
        planarconfig="separate",
    )
    Image.fromarray(image).convert("RGBA").save(tmp_path / "in" / "opaque.png")
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    assert run(tmp_path / "in", "--output", tmp_path / "out", "--weights", model) == 0
    folders = sorted(path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert [folder.name for folder in folders] == ["deep", "lzw", "opaque", "packed", "planes"]
    assert all(places(folder) == [(60.0, 60.0)] for folder in folders)


def test_what_is_wrong_is_told_in_one_line(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = drawn(64, 64, [])
    one, two = save(image, tmp_path / "a" / "x.png"), save(image, tmp_path / "b" / "x.png")
    (tmp_path / "empty").mkdir()
    paged = tmp_path / "slide.svs"
    tifffile.imwrite(paged, np.stack([image, image]), photometric="rgb")
    cell_model = Path(__file__).parents[1] / "hand_set"
    out = tmp_path / "out"
    (out / "x").mkdir(parents=True)
    (out / "x" / "nuclei.csv").write_text("somebody else's")
    fresh = tmp_path / "fresh"
    for code, match, command in (
        (3, "same name, x", (one, two, "--output", fresh, "--weights", model)),
        (3, "softctm slides", (paged, "--output", fresh, "--weights", model)),
        (3, "holds no images", (tmp_path / "empty", "--output", fresh, "--weights", model)),
        (3, "is not there", (tmp_path / "absent.png", "--output", fresh, "--weights", model)),
        *(
            (2, "--mpp must be", (one, "--output", fresh, "--weights", model, f"--mpp={mpp}"))
            for mpp in (0, -0.5, 0.01, 5, "nan", "inf")
        ),
        (
            4,
            "is a model of the task cell-points, not of nuclei",
            (one, "--output", fresh, "--weights", cell_model),
        ),
        (6, "did not make it", (one, "--output", out, "--weights", model)),
    ):
        assert run(*command) == code, match
        assert match in capsys.readouterr().err.strip().splitlines()[-1]
    monkeypatch.setattr(nuclei_image, "_MAX_PIXELS", 4 * 64 * 64)
    assert run(one, "--output", fresh, "--weights", model, "--mpp", 1) == 3
    assert "too many; check --mpp" in capsys.readouterr().err.strip().splitlines()[-1]
    assert (out / "x" / "nuclei.csv").read_text() == "somebody else's"
    assert run(one, "--output", out, "--weights", model, "--overwrite") == 0
    assert run(one, "--output", out, "--weights", model) == 0


def test_what_is_for_cells_refuses_a_model_of_nuclei(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, out = Path(__file__).parents[1] / "input", ("--output", str(tmp_path / "out"))
    assert main(["predict", "--input", str(pairs), *out, "--weights", str(model), "--device", "cpu"]) == 4
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "is a model of the task nuclei, not of cell-points" in last


@pytest.fixture
def token_model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tokens", stage={"heads": [*heads(), token_head()]})


def embeddings(folder: Path) -> tuple[list[int], NDArray[np.float16]]:
    rows = pytest.importorskip("pyarrow.parquet").read_table(folder / "embeddings.parquet")
    return rows["id"].to_pylist(), np.array(rows["embedding"].to_pylist(), np.float16)


def test_embeddings_are_the_mean_token_of_the_field_that_owns_a_nucleus(
    tmp_path: Path, token_model: Path
) -> None:
    """Computed again from the image and the files: without the networks, without fields."""
    anndata = pytest.importorskip("anndata")
    image = drawn(500, 700, lattice(500, 700))
    image[:, :, 2] -= np.linspace(0, 15, 700).astype(np.uint8)  # no square of pixels is like another
    save(image, tmp_path / "in" / "a.png")
    command = (tmp_path / "in", "--output", tmp_path / "out", "--weights", token_model)
    assert run(*command, "--also", "embeddings.parquet,embeddings.h5ad") == 0
    folder = tmp_path / "out" / "a"
    ids, found = embeddings(folder)
    rows = table(folder)
    assert ids == [int(row["id"]) for row in rows]
    assert found.shape == (len(rows), TOKENS)
    instances = tifffile.imread(folder / "instances.tif")
    # 700 is no multiple of 16: the last squares are filled up with the mirrored image.
    whole = np.pad(image, ((0, 12), (0, 4), (0, 0)), mode="symmetric") / 255
    squares = whole.reshape(32, STRIDE, 44, STRIDE, 3).mean(axis=(1, 3))
    for row, vector in zip(rows, found, strict=True):
        y, x = np.nonzero(instances == int(row["id"]))
        covered = np.array(sorted(set(zip(y // STRIDE, x // STRIDE, strict=True))))
        color = squares[covered[:, 0], covered[:, 1]].mean(axis=0)
        # Fields begin every 192 pixels; the core of all but the first begins 32 pixels later.
        column, line = ((max(float(row[axis]) - 32, 0) // 192) * 192 for axis in ("x", "y"))
        place = covered[:, ::-1].mean(axis=0) - np.array([column, line]) / STRIDE
        np.testing.assert_allclose(vector, [*color, *place], rtol=1e-3, atol=1e-3)
    data = anndata.read_h5ad(folder / "embeddings.h5ad")
    np.testing.assert_array_equal(data.X, found)
    assert data.obs["id"].tolist() == ids
    assert data.obs["type"].tolist() == [row["type"] for row in rows]
    np.testing.assert_allclose(
        data.obsm["spatial"], [(float(row["x"]), float(row["y"])) for row in rows], atol=0.006
    )
    # They are gone when they are not asked for: ids are others' in another run.
    assert run(*command) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["instances.tif", "nuclei.csv", "nuclei.geojson"]


def test_embeddings_of_an_image_of_another_scale(tmp_path: Path, token_model: Path) -> None:
    save(drawn(120, 130, lattice(120, 130, 24), 2.0), tmp_path / "a.png")
    command = (tmp_path / "a.png", "--output", tmp_path / "out", "--weights", token_model, "--mpp", 1.0)
    assert run(*command, "--also", "embeddings.parquet") == 0
    ids, found = embeddings(tmp_path / "out" / "a")
    rows = table(tmp_path / "out" / "a")
    assert ids == [int(row["id"]) for row in rows] != []
    for row, vector in zip(rows, found, strict=True):
        # Four of the model's pixels a pixel, 16 of them a token; fields begin every 192 of them.
        place = [float(row[axis]) / 4 - max(float(row[axis]) * 4 - 32, 0) // 192 * 12 for axis in ("x", "y")]
        np.testing.assert_allclose(vector[3:], np.array(place) - 0.5, atol=0.8)


def test_no_nuclei_have_no_embeddings(tmp_path: Path, token_model: Path) -> None:
    save(np.full((300, 300, 3), 255, np.uint8), tmp_path / "white.png")
    command = (tmp_path / "white.png", "--output", tmp_path / "out", "--weights", token_model)
    assert run(*command, "--also", "embeddings.parquet") == 0
    assert embeddings(tmp_path / "out" / "white")[0] == []
    found = find_nuclei(load_detector(token_model, device="cpu"), drawn(50, 50, []), embeddings=True)
    assert found.nuclei.embeddings is not None
    assert found.nuclei.embeddings.shape == (0, TOKENS)


def test_embeddings_that_cannot_be_made_are_refused_first(
    tmp_path: Path, model: Path, token_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = save(drawn(64, 64, [(30, 30)]), tmp_path / "x.png")
    (entry,) = json.loads((token_model / "model.json").read_text())["stages"]["nuclei"]["networks"]
    two = {"heads": [*heads(), token_head()], "networks": [entry, entry]}
    for code, match, weights, form in (
        (4, f"{model}: gives no tokens to make embeddings of", model, "embeddings.parquet"),
        (
            4,
            "averages 2 networks, whose tokens",
            write_model(tmp_path / "two", stage=two),
            "embeddings.parquet",
        ),
        (
            2,
            "--also must be one of geojson.gz, embeddings.parquet, embeddings.h5ad, not npy",
            token_model,
            "npy",
        ),
    ):
        out = tmp_path / f"out_{weights.name}"
        assert run(image, "--output", out, "--weights", weights, "--also", form) == code
        assert match in capsys.readouterr().err.strip().splitlines()[-1]
        assert not (out / "x").exists()


def test_embeddings_need_their_library(
    tmp_path: Path, token_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(slide_formats._LIBRARIES, "parquet", ("no_such_library",))
    image = save(drawn(64, 64, [(30, 30)]), tmp_path / "x.png")
    command = (image, "--output", tmp_path / "out", "--weights", token_model, "--also", "embeddings.parquet")
    assert run(*command) == 10
    assert "no_such_library is not installed" in capsys.readouterr().err
    assert not (tmp_path / "out" / "x").exists()


def test_tokens_are_as_the_manifest_says(tmp_path: Path) -> None:
    for number, (changes, match) in enumerate(
        (({"width": 7}, "gives 5 numbers a vector where 7"), ({"stride": 32}, "tokens has 16 × 16"))
    ):
        folder = write_model(tmp_path / str(number), stage={"heads": [*heads(), token_head(**changes)]})
        with pytest.raises(ModelError, match=match):
            load_detector(folder, device="cpu")(drawn(60, 60, []))


def test_an_image_named_as_the_record_is_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = save(drawn(64, 64, []), tmp_path / "run.json.png")
    assert run(image, "--output", tmp_path / "out", "--weights", model) == 3
    assert "run.json.png: its results would take the name of run.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("precision", "remedy"),
    [("float32", "or leave the image out"), ("float16", "too large for 16 bits, take --precision float32")],
)
def test_values_that_are_not_finite_are_told_with_what_helps(
    tmp_path: Path, precision: str, remedy: str
) -> None:
    folder = write_model(tmp_path / "nan")
    network = onnx.load(folder / "net.onnx")
    for tensor in network.graph.initializer:
        if list(tensor.dims) == [3]:  # of the types
            tensor.CopyFrom(numpy_helper.from_array(np.full(3, np.nan, np.float32), tensor.name))
    onnx.save(network, folder / "net.onnx")
    manifest = json.loads((folder / "model.json").read_text())
    (entry,) = manifest["stages"]["nuclei"]["networks"]
    entry["files"]["float32"]["sha256"] = sha256_of(folder / "net.onnx")
    (folder / "model.json").write_text(json.dumps(manifest))
    detector = load_detector(folder, device="cpu", precision=precision)
    with pytest.raises(
        PairError, match=f"^the network net.onnx gave values that are not finite; .*{remedy}$"
    ):
        detector(drawn(60, 60, [(20, 20)]))


def test_views_are_one(model: Path) -> None:
    for quality in ("fast", "balanced", "full"):
        found = load_detector(model, device="cpu", quality=quality)(drawn(100, 90, [(40, 50)]))
        assert found.instances.shape == found.types.shape == (100, 90)
        assert found.instances.max() == 1
    with pytest.raises(UsageError, match=r"--views 2: models of the task nuclei take no more than 1"):
        load_detector(model, device="cpu", views=2)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"stage": {"heads": heads()[:2]}}, "heads: must be nuclei_binary_map, hv_map and nuclei_type_map"),
        ({"stage": {"heads": heads(hv_map="logits")}}, "hv_map: activation must be none"),
        ({"stage": {"heads": heads(nuclei_type_map="none")}}, "nuclei_type_map: activation must be logits"),
        (
            {"stage": {"heads": [heads()[0] | {"classes": ["a", "b", "c"]}, *heads()[1:]]}},
            "nuclei_binary_map: must have 2 classes, not 3",
        ),
        (
            {"stage": {"heads": [*heads(), token_head(width=None, stride=1, classes=["a"])]}},
            "tokens: must have a width",
        ),
        ({"stage": {"heads": [*heads(), token_head(stride=24)]}}, "stride must divide the input's size, 256"),
        ({"stage": {"heads": [*heads(), token_head(activation="logits")]}}, "must be none for vectors"),
        ({"stage": {"heads": [*heads(), token_head(classes=["a"])]}}, "and vectors a width instead"),
        ({"stage": {"heads": [heads()[0] | {"stride": 2}, *heads()[1:]]}}, "only vectors"),
        ({"stage": {"input": {"size": SIZE, "mpp": 0.25, "channels": ["red"]}}}, "channels: must be"),
        ({"postprocessing": {"method": "peaks"}}, "must be hover for nuclei, not peaks"),
        ({"postprocessing": {"method": "hover", "magnification": 10}}, "magnification must be one of"),
    ],
)
def test_manifests_are_checked(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ModelError, match=match):
        load_detector(write_model(tmp_path / "model", **changes))
