"""Grand Challenge's `inputs.json`: both spellings, every place a value can have, every ambiguity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inputs import entry, patch, write_metadata, write_pairs
from PIL import Image

from softctm.errors import InputError
from softctm.readers import open_pairs


def value(
    slug: str, relative_path: str | None = None, key: str = "socket", content: Any = None
) -> dict[str, Any]:
    """One value as the platform writes it."""
    is_image = "metadata" not in slug
    return {
        "pk": 1,
        "file": None,
        "image": {"pk": "46140e02", "name": "upload.tif"} if is_image else None,
        "value": content,
        key: {
            "pk": 40,
            "title": slug.replace("-", " "),
            "slug": slug,
            "kind": "Image" if is_image else "Anything",
            "super_kind": "Image" if is_image else "File",
            "relative_path": relative_path,
            "overlay_segments": [],
        },
    }


def write_sockets(folder: Path, values: Any) -> Path:
    (folder / "inputs.json").write_text(json.dumps(values))
    return folder


USUAL = [
    value("he-cell-patches", "images/he-cells"),
    value("he-tissue-patches", "images/he-tissues"),
    value("patch-metadata", "patch-metadata.json"),
]


def write_usual(folder: Path) -> Path:
    """A stack of two under random file names, as the platform stores images."""
    for name, offset in (("he-cells", 0), ("he-tissues", 100)):
        (folder / "images" / name).mkdir(parents=True)
        stack = np.concatenate([patch(offset), patch(offset + 1)])
        Image.fromarray(stack).save(folder / "images" / name / f"b1a7{offset}.tif")
    (folder / "patch-metadata.json").write_text(json.dumps([entry(1), entry(2)]))
    return write_sockets(folder, USUAL)


@pytest.mark.parametrize("key", ["socket", "interface"])
def test_stacks_at_their_relative_path(tmp_path: Path, key: str) -> None:
    write_usual(tmp_path)
    values = [{key: v["socket"], **{k: x for k, x in v.items() if k != "socket"}} for v in USUAL]
    source = open_pairs(write_sockets(tmp_path, values))
    assert source.names == ["image_0", "image_1"]
    for index in range(2):
        pair = source.read(index)
        assert np.array_equal(pair.cell, patch(index))
        assert np.array_equal(pair.tissue, patch(100 + index))
        assert pair.window.x == index + 1


def test_without_relative_path_the_slug_names_the_folder(tmp_path: Path) -> None:
    write_usual(tmp_path)
    for old, new in (("he-cells", "he-cell-patches"), ("he-tissues", "he-tissue-patches")):
        (tmp_path / "images" / old).rename(tmp_path / "images" / new)
    folder = tmp_path / "images" / "patch-metadata"
    folder.mkdir()
    (tmp_path / "patch-metadata.json").rename(folder / "0.json")
    write_sockets(tmp_path, [value(v["socket"]["slug"]) for v in USUAL])
    assert np.array_equal(open_pairs(tmp_path).read(1).tissue, patch(101))


def test_folders_of_patches_work_too(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    places = ["images/cell_patches", "images/tissue_patches", "metadata.json"]
    slugs = ["cell-patches", "tissue-patches", "metadata"]
    source = open_pairs(write_sockets(tmp_path, [value(s, p) for s, p in zip(slugs, places, strict=True)]))
    assert source.names == ["000", "001"]
    assert source.read(1).window.x == 1


def test_a_relative_path_may_name_a_file(tmp_path: Path) -> None:
    write_usual(tmp_path)
    values = [
        value("cell", "images/he-cells/b1a70.tif"),
        value("tissue", "images/he-tissues/b1a7100.tif"),
        USUAL[2],
    ]
    assert len(open_pairs(write_sockets(tmp_path, values))) == 2


def test_metadata_inside_inputs_json(tmp_path: Path) -> None:
    write_usual(tmp_path)
    (tmp_path / "patch-metadata.json").unlink()
    inline = value("patch-metadata", "patch-metadata.json", content=[entry(7), entry(8)])
    assert open_pairs(write_sockets(tmp_path, [*USUAL[:2], inline])).read(1).window.x == 8


@pytest.mark.parametrize(
    "extra",
    [
        value("organ", "organ.json"),
        value("cell-classification", "cell_classification.json") | {"image": None},
        value("other-cells", "images/nothing-here"),
        value("cell-metadata"),
        value("tissue-segmentation-of-cells", "images/nothing-here"),
    ],
    ids=lambda extra: extra["socket"]["slug"],
)
@pytest.mark.parametrize("is_last", [True, False])
def test_other_sockets_are_passed_over_and_named(
    tmp_path: Path, extra: dict[str, Any], is_last: bool
) -> None:
    write_usual(tmp_path)
    source = open_pairs(write_sockets(tmp_path, [*USUAL, extra] if is_last else [extra, *USUAL]))
    assert np.array_equal(source.read(1).cell, patch(1))
    assert source.read(1).window.x == 2
    assert source.warnings == [f"inputs.json: passed over the sockets {extra['socket']['slug']}"]


def test_an_output_socket_of_the_older_form(tmp_path: Path) -> None:
    """Without a kind, the file that the algorithm writes tells it."""
    write_usual(tmp_path)
    (tmp_path / "cell_classification.json").write_text("{}")
    output = {"interface": {"slug": "cell-classification", "relative_path": "cell_classification.json"}}
    assert len(open_pairs(write_sockets(tmp_path, [output, *USUAL]))) == 2


def test_two_stacks_in_a_socket(tmp_path: Path) -> None:
    write_usual(tmp_path)
    folder = tmp_path / "images" / "he-cells"
    (folder / "a.tif").write_bytes((folder / "b1a70.tif").read_bytes())
    with pytest.raises(InputError, match=r"images/he-cells: holds 2 stacks \(a\.tif, b1a70\.tif\) where one"):
        open_pairs(tmp_path)


CELL, TISSUE, METADATA = USUAL


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "must be a list of values"),
        ([], "no socket's slug contains cell"),
        ([1], "value 0 has no socket with a slug"),
        ([{"socket": {"slug": 3}}], "value 0 has no socket with a slug"),
        ([{"socket": []}], "value 0 has no socket with a slug"),
        ([CELL, METADATA], "no socket's slug contains tissue .it has he-cell-patches, patch-metadata"),
        ([CELL, TISSUE], "no socket's slug contains metadata"),
        (
            [*USUAL, value("other-cells", "images/he-tissues")],
            "several sockets could be the cell one .he-cell-patches, other-cells., and there are values",
        ),
        (
            [value("cell-and-tissue", "images/he-cells"), METADATA],
            "both the cell and the tissue one",
        ),
        ([value("cell", "/etc"), TISSUE, METADATA], "relative_path of cell leaves the input folder"),
        (
            [value("cell", "images/../../etc"), TISSUE, METADATA],
            "relative_path of cell leaves the input folder",
        ),
        (
            [{"socket": {"slug": "cell", "relative_path": 5}}, TISSUE, METADATA],
            "relative_path of cell is no path",
        ),
        (
            [value("cell", "images/gone"), TISSUE, METADATA],
            "images/gone: missing, although inputs.json names it",
        ),
        ([CELL, TISSUE, value("metadata", "gone.json")], r"gone.json: is missing; add it as /.*/gone\.json"),
        ([CELL, TISSUE, value("metadata", "images")], "images: holds 0 JSON files instead of one"),
    ],
)
def test_ambiguous_or_missing_sockets(tmp_path: Path, values: Any, message: str) -> None:
    write_usual(tmp_path)
    with pytest.raises(InputError, match=message):
        open_pairs(write_sockets(tmp_path, values))


def test_inputs_json_that_is_no_json(tmp_path: Path) -> None:
    write_metadata(write_pairs(tmp_path, 1), [entry()])
    (tmp_path / "inputs.json").write_text("{")
    with pytest.raises(InputError, match=r"inputs\.json: is not valid JSON"):
        open_pairs(tmp_path)
