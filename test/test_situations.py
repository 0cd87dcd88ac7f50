"""Each row of docs/situations.md happens as it says.

A case is a function that is given an empty folder, makes the situation there, and returns the exit code and
everything that was told. `@situation("id")` puts it into the table.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from inputs import entry, patch, stack_paths, write_metadata, write_pairs
from numpy.typing import NDArray
from PIL import Image
from tiny_networks import network, write_folder, write_manifest

from softctm.cli import main
from softctm.datasets.ocelot import load_release
from softctm.errors import SoftCTMError
from softctm.readers import open_pairs

TABLE = Path(__file__).resolve().parents[1] / "docs" / "situations.md"
CELL, TISSUE = "images/cell_patches", "images/tissue_patches"

Answer = tuple[int, str]
CASES: dict[str, Callable[[Path], Answer]] = {}


def situation(name: str) -> Callable[[Callable[[Path], Answer]], Callable[[Path], Answer]]:
    """Register the case of the row `name`."""

    def register(case: Callable[[Path], Answer]) -> Callable[[Path], Answer]:
        assert name not in CASES
        CASES[name] = case
        return case

    return register


def rows() -> dict[str, tuple[str, int]]:
    """The table: id → answer and exit code."""
    found = re.findall(
        r"^\| ([a-z0-9-]+) \| .+? \| (.+) \| (\d+) \|$", TABLE.read_text(encoding="utf-8"), re.M
    )
    return {name: (answer, int(code)) for name, answer, code in found}


def read(folder: Path) -> Answer:
    """Read all pairs, as `predict` does before it computes."""
    try:
        source = open_pairs(folder)
        for index in range(len(source)):
            source.read(index)
    except SoftCTMError as error:
        return error.exit_code, str(error)
    return 0, "\n".join(source.warnings)


def with_cell(folder: Path, name: str, save: Callable[[Path], object], expected: object = None) -> Answer:
    """One pair whose cell image is written by `save`; where it is read, its pixels must be `expected`."""
    write_pairs(folder, 1)
    (folder / CELL / "000.png").unlink()
    save(folder / CELL / name)
    if expected is not None:
        difference = open_pairs(folder).read(0).cell.astype(int) - np.asarray(expected, int)
        assert np.abs(difference).mean() < (5 if name.endswith("jpg") else 1e-9)
    return read(folder)


def deep(scale: int = 257) -> NDArray[np.uint16]:
    return patch(0).astype(np.uint16) * scale


def save_png16(pixels: NDArray[np.uint16]) -> Callable[[Path], object]:
    return lambda path: sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(path))


@situation("rgb16-full")
def _(folder: Path) -> Answer:
    return with_cell(folder, "000.png", save_png16(deep()), patch(0))


@situation("rgb16-8bit")
def _(folder: Path) -> Answer:
    return with_cell(folder, "000.png", save_png16(deep(1)))


@situation("rgb16-12bit-tiff")
def _(folder: Path) -> Answer:
    return with_cell(folder, "000.tif", lambda path: tifffile.imwrite(path, deep(16), photometric="rgb"))


@situation("planar16-tiff")
def _(folder: Path) -> Answer:
    planes = np.ascontiguousarray(deep().transpose(2, 0, 1))
    return with_cell(
        folder,
        "000.tif",
        lambda path: tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate"),
        patch(0),
    )


@situation("white-is-zero-tiff")
def _(folder: Path) -> Answer:
    gray = deep()[..., 0]
    return with_cell(
        folder,
        "000.tif",
        lambda path: tifffile.imwrite(path, 65535 - gray, photometric="miniswhite"),
        np.repeat(gray[..., None] >> 8, 3, 2),
    )


@situation("jpeg12")
def _(folder: Path) -> Answer:
    def save(path: Path) -> None:
        Image.fromarray(patch(0)).save(path)
        data = bytearray(path.read_bytes())
        data[data.index(b"\xff\xc0\x00\x11\x08") + 4] = 12
        path.write_bytes(data)

    return with_cell(folder, "000.jpg", save)


@situation("float-tiff")
def _(folder: Path) -> Answer:
    pixels = patch(0).astype(np.float32)
    return with_cell(folder, "000.tif", lambda path: tifffile.imwrite(path, pixels, photometric="rgb"))


def retagged(name: str, change: Callable[[object], object]) -> Callable[[Path], None]:
    """A tiled TIFF whose tag `name` is changed."""

    def save(path: Path) -> None:
        tifffile.imwrite(path, patch(0), photometric="rgb", tile=(256, 256))
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tag = tiff.pages.first.tags[name]
            tag.overwrite(change(tag.value))

    return save


@situation("jpeg2000-tiff")
def _(folder: Path) -> Answer:
    return with_cell(folder, "000.tif", retagged("Compression", lambda value: 34712))


@situation("sparse-tiff")
def _(folder: Path) -> Answer:
    def save(path: Path) -> None:
        tifffile.imwrite(path, patch(0), photometric="rgb", tile=(256, 256))
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            for name in ("TileOffsets", "TileByteCounts"):
                tag = tiff.pages.first.tags[name]
                tag.overwrite([0, *tag.value[1:]])

    return with_cell(folder, "000.tif", save)


@situation("mpo")
def _(folder: Path) -> Answer:
    more = [Image.fromarray(patch(1))]
    save = Image.fromarray(patch(0)).save
    return with_cell(
        folder, "000.jpg", lambda path: save(path, "MPO", save_all=True, append_images=more), patch(0)
    )


@situation("only-webp")
def _(folder: Path) -> Answer:
    for name in (CELL, TISSUE):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.webp").touch()
    write_metadata(folder, [entry()])
    return read(folder)


@situation("accents")
def _(folder: Path) -> Answer:
    write_pairs(folder, 1)
    for name, stem in ((CELL, "\u00e9"), (TISSUE, "e\u0301")):
        (folder / name / "000.png").rename(folder / name / f"{stem}.png")
    return read(folder)


@situation("numeric-order")
def _(folder: Path) -> Answer:
    write_pairs(folder, 12)
    for name in (CELL, TISSUE):
        for path in sorted((folder / name).iterdir()):
            path.rename(path.with_name(f"{int(path.stem) + 1}.png"))
    return read(folder)


@situation("metadata-bom")
def _(folder: Path) -> Answer:
    (write_pairs(folder, 1) / "metadata.json").write_text(json.dumps([entry()]), encoding="utf-8-sig")
    return read(folder)


@situation("metadata-comma")
def _(folder: Path) -> Answer:
    (write_pairs(folder, 1) / "metadata.json").write_text('[{"cell": 1\n "tissue": 2}]')
    return read(folder)


def write_sockets(folder: Path, places: dict[str, str]) -> None:
    values = [
        {"socket": {"slug": slug, "relative_path": place, "super_kind": "File" if "." in place else "Image"}}
        for slug, place in places.items()
    ]
    (folder / "inputs.json").write_text(json.dumps(values))


@situation("output-socket")
def _(folder: Path) -> Answer:
    write_pairs(folder, 1)
    places = {"cells": CELL, "tissue": TISSUE, "metadata": "metadata.json"}
    write_sockets(folder, places | {"cell-classification": "cell_classification.json"})
    return read(folder)


@situation("two-stacks")
def _(folder: Path) -> Answer:
    paths = stack_paths(folder)
    stack = Image.fromarray(np.concatenate([patch(0), patch(1)]))
    for path in (paths["tissue"], paths["cell"].with_name("a.tif"), paths["cell"].with_name("b.tif")):
        stack.save(path)
    write_metadata(folder, [entry()] * 2)
    write_sockets(folder, {"cells": CELL, "tissue": TISSUE, "metadata": "metadata.json"})
    return read(folder)


@situation("release-lists-more")
def _(folder: Path) -> Answer:
    for kind in ("cell", "tissue"):
        (folder / "images/train" / kind).mkdir(parents=True)
        Image.fromarray(patch(0)).save(folder / "images/train" / kind / "000.jpg")
    entries = {name: entry() | {"subset": "train"} for name in ("000", "001")}
    write_metadata(folder, {"sample_pairs": entries})
    return read(folder)


@situation("phantom-over-release")
def _(folder: Path) -> Answer:
    write_metadata(folder, {"sample_pairs": {"001": {"slide_name": "TCGA-1"}}})
    return main(["phantom", str(folder)]), ""


def predict(folder: Path, *more: str, weights: Path | None = None) -> list[str]:
    model = weights or write_folder(folder / "weights")
    words = ["predict", "--input", str(folder / "in"), "--output", str(folder / "out")]
    return [*words, "--weights", str(model), "--views", "1", "--device", "cpu", *more]


@situation("long-name")
def _(folder: Path) -> Answer:
    write_pairs(folder / "in", 1)
    for kind in (CELL, TISSUE):
        (folder / "in" / kind / "000.png").rename(folder / "in" / kind / ("n" * 248 + ".png"))
    code = main(predict(folder, "--also", "geojson"))
    assert json.loads((folder / "out/cell_classification.json").read_text())["points"]
    return code, ""


@situation("output-of-others")
def _(folder: Path) -> Answer:
    write_pairs(folder / "in", 1)
    (folder / "out").mkdir()
    (folder / "out/run.json").write_text("{}")
    return main(predict(folder)), ""


def in_process(words: list[str], before: str = "", **streams: Any) -> Answer:
    """Run the command in a process of its own."""
    code = f"import sys\n{before}\nfrom softctm.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, check=False, **streams
    )
    return done.returncode, done.stderr


@situation("stdout-full")
def _(folder: Path) -> Answer:
    write_pairs(folder / "in", 1)
    with open("/dev/full", "w") as full:
        answer = in_process(predict(folder), stdout=full)
    assert json.loads((folder / "out/cell_classification.json").read_text())["points"]
    return answer


@situation("help-full")
def _(folder: Path) -> Answer:
    with open("/dev/full", "w") as full:
        return in_process(["--help"], stdout=full)


@situation("no-package")
def _(folder: Path) -> Answer:
    words = ["report", str(folder / "page.html"), "--predictions", "a.json", "--input", str(folder)]
    return in_process(words, "sys.modules['matplotlib'] = None")


@situation("logits")
def _(folder: Path) -> Answer:
    write_pairs(folder / "in", 1)
    weights = write_folder(folder / "weights")
    (weights / "cell_fold0.onnx").write_bytes(network(1, 5, 3))
    return main(predict(folder, weights=weights)), ""


def with_manifest(folder: Path, *more: str, **changes: Any) -> Answer:
    write_pairs(folder / "in", 1)
    weights = write_folder(folder / "weights")
    write_manifest(weights, **changes)
    return main(predict(folder, *more, weights=weights)), ""


@situation("old-manifest")
def _(folder: Path) -> Answer:
    return with_manifest(folder, schema_version=1)


@situation("int8-missing")
def _(folder: Path) -> Answer:
    return with_manifest(folder, "--precision", "int8")


def folds(folder: Path, *slides: str | None) -> int:
    """`softctm folds` of a release of a pair a slide, whose annotations have a header and blank lines."""
    for kind in ("cell", "tissue"):
        (folder / "images/train" / kind).mkdir(parents=True)
        (folder / "annotations/train" / kind).mkdir(parents=True)
    pairs = {f"{number:03d}": slide for number, slide in enumerate(slides, start=1)}
    for name in pairs:
        for kind in ("cell", "tissue"):
            Image.fromarray(patch(0)).save(folder / "images/train" / kind / f"{name}.jpg")
        (folder / f"annotations/train/cell/{name}.csv").write_text("x,y,label\n5,6,1\n7,8,2\n\n\n")
        labels = np.ones((1024, 1024), np.uint8)
        Image.fromarray(labels).save(folder / f"annotations/train/tissue/{name}.png")
    common = entry() | {"subset": "train", "organ": "kidney"}
    metadata = {name: common | {"slide_name": slide} for name, slide in pairs.items()}
    write_metadata(folder, {"sample_pairs": metadata})
    return main(["folds", str(folder / "folds.json"), "--data", str(folder)])


@situation("patient-null")
def _(folder: Path) -> Answer:
    return folds(folder, None), ""


@situation("one-patient")
def _(folder: Path) -> Answer:
    return folds(folder, "TCGA-AB-1234-01"), ""


@situation("header-row")
def _(folder: Path) -> Answer:
    code = folds(folder, *(f"TCGA-AB-{number}-01" for number in range(1234, 1239)))
    assert [pair.cells().label.tolist() for pair in load_release(folder)] == [[1, 2]] * 5
    return code, ""


# Last, when all cases are registered.
def test_every_row_has_a_case_and_every_case_a_row() -> None:
    table = TABLE.read_text(encoding="utf-8").splitlines()
    assert len(rows()) == sum(line.startswith("| ") for line in table) - 2  # the heading and the rule
    assert sorted(rows()) == sorted(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_answer_is_as_written(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer, code = rows()[name]
    found, told = CASES[name](tmp_path)
    assert found == code
    told += capsys.readouterr().err
    for part in re.findall(r'"(.*)"', answer):
        assert part in told
    assert "Traceback" not in told
