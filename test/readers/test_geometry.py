"""Where the cell patch lies: hand-computed cases, the real pairs, and all that metadata can get wrong."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softctm.errors import PairError
from softctm.pair import TissueWindow
from softctm.readers.geometry import resolution_warnings, tissue_window

# A real pair of the release: boxes of 808 and 3235 slide pixels.
REAL: dict[str, Any] = {
    "cell": {"x_start": 58243, "y_start": 46299, "x_end": 59051, "y_end": 47107, "resized_mpp_x": 0.19426718},
    "tissue": {"x_start": 58230, "y_start": 45290, "x_end": 61465, "y_end": 48525, "resized_mpp_x": 0.77779},
    "patch_x_offset": 0.12890262751159196,
    "patch_y_offset": 0.43678516228748065,
    "mpp_x": 0.2462,
    "mpp_y": 0.2462,
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """REAL with one value replaced, or removed where `value` is KeyError."""
    metadata = copy.deepcopy(REAL)
    *parents, key = path.split(".")
    section = metadata
    for parent in parents:
        section = section[parent]
    if value is KeyError:
        del section[key]
    else:
        section[key] = value
    return metadata


def test_window_of_a_real_pair_by_hand() -> None:
    # 1024 · 13 / 3235 = 4.1, 1024 · 1009 / 3235 = 319.4
    assert tissue_window(REAL, "p") == TissueWindow(4, 319)


def test_offsets_are_used_where_boxes_are_absent() -> None:
    # 1024 · 0.128903 − 128 = 3.996 and 1024 · 0.436785 − 128 = 319.3
    offsets = {key: REAL[key] for key in ("patch_x_offset", "patch_y_offset")}
    assert tissue_window(offsets, "p") == TissueWindow(3, 319)
    assert tissue_window({**offsets, "cell": {"resized_mpp_x": 0.2}, "tissue": {}}, "p") == TissueWindow(
        3, 319
    )


def test_boxes_win_over_offsets() -> None:
    assert tissue_window(changed("patch_x_offset", 0.8), "p") == TissueWindow(4, 319)
    assert tissue_window(changed("patch_x_offset", "text"), "p") == TissueWindow(4, 319)


def test_real_pairs_by_boxes_and_by_offsets(shared: Path) -> None:
    """A cell box is up to 1 slide pixel short of a quarter, so that few windows differ by one pixel."""
    pairs = json.loads((shared / "ocelot" / "metadata.json").read_text())["sample_pairs"]
    moved = 0
    for name, metadata in pairs.items():
        by_boxes = tissue_window(metadata, name)
        by_offsets = tissue_window({k: v for k, v in metadata.items() if k not in ("cell", "tissue")}, name)
        assert abs(by_boxes.x - by_offsets.x) <= 1
        assert abs(by_boxes.y - by_offsets.y) <= 1
        moved += by_boxes != by_offsets
        assert resolution_warnings(metadata, name) == []
    assert moved <= 0.05 * len(pairs)


@given(st.integers(0, 768), st.integers(0, 768), st.integers(1, 10), st.integers(-(10**6), 10**6))
def test_a_window_drawn_at_any_scale_is_found(x: int, y: int, scale: int, origin: int) -> None:
    metadata = {
        "cell": {
            "x_start": origin + scale * x,
            "y_start": origin + scale * y,
            "x_end": origin + scale * (x + 256),
            "y_end": origin + scale * (y + 256),
        },
        "tissue": {
            "x_start": origin,
            "y_start": origin,
            "x_end": origin + scale * 1024,
            "y_end": origin + scale * 1024,
        },
    }
    assert tissue_window(metadata, "p") == TissueWindow(x, y)
    offsets = {"patch_x_offset": (x + 128) / 1024, "patch_y_offset": (y + 128) / 1024}
    assert tissue_window(offsets, "p") == TissueWindow(x, y)


NOT_NUMBERS = [float("nan"), float("inf"), "58243", None, True, [1], {}, 10**400]


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=[repr(v)[:12] for v in NOT_NUMBERS])
def test_a_box_that_is_not_a_number_is_an_error_not_a_reason_to_fall_back(value: Any) -> None:
    with pytest.raises(PairError, match=r"pair p: cell\.x_start .*not a number") as caught:
        tissue_window(changed("cell.x_start", value), "p")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("cell.x_start", KeyError, r"cell\.x_start is missing"),
        ("tissue", KeyError, r"tissue\.x_start is missing"),
        ("tissue", [1, 2], "tissue in its metadata must be an object"),
        ("tissue.x_end", 58230, r"the tissue box has no extent: tissue\.x_end is not larger"),
        ("tissue.x_end", 58000, "the tissue box has no extent"),
        ("cell.y_end", 46299, "the cell box has no extent"),
        ("cell.x_start", 58000, "does not lie inside the tissue patch"),
        ("cell.x_end", 70000, "does not lie inside the tissue patch"),
        ("tissue.x_start", 10.0**300, "has no extent"),
    ],
)
def test_boxes_that_cannot_be(path: str, value: Any, message: str) -> None:
    with pytest.raises(PairError, match=f"pair p: .*{message}"):
        tissue_window(changed(path, value), "p")


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ({}, "neither boxes"),
        ({"patch_x_offset": 0.5}, "patch_y_offset is missing"),
        (
            {"patch_x_offset": "0.5", "patch_y_offset": 0.5},
            "patch_x_offset in its metadata is '0.5', not a number",
        ),
        ({"patch_x_offset": 0.1, "patch_y_offset": 0.5}, "does not lie inside"),
        ({"patch_x_offset": 0.5, "patch_y_offset": 0.9}, "does not lie inside"),
        ({"patch_x_offset": 1e300, "patch_y_offset": 0.5}, "does not lie inside"),
    ],
)
def test_offsets_that_cannot_be(offsets: dict[str, Any], message: str) -> None:
    with pytest.raises(PairError, match=f"pair p: .*{message}"):
        tissue_window(offsets, "p")


@pytest.mark.parametrize(
    ("path", "value", "warned"),
    [
        ("cell.resized_mpp_x", 0.194, False),
        ("cell.resized_mpp_x", 0.22, False),  # exactly 10 %
        ("cell.resized_mpp_x", 0.2201, True),
        ("cell.resized_mpp_x", 0.1799, True),
        ("tissue.resized_mpp_x", 0.4, True),
        ("tissue.resized_mpp_y", 0.4, True),
        ("cell.resized_mpp_x", "fine", True),
        ("mpp_x", 0.5, False),  # the slide's own resolution says nothing beside resized_mpp_x
        ("mpp_x", "text", False),
    ],
)
def test_resolution_that_contradicts_the_contract(path: str, value: Any, warned: bool) -> None:
    warnings = resolution_warnings(changed(path, value), "p")
    assert bool(warnings) == warned
    assert all("pair p" in line for line in warnings)


@pytest.mark.parametrize(("mpp", "kinds"), [(0.2462, []), (0.5, ["cell", "tissue"])])
def test_resolution_from_box_and_slide_where_it_is_not_given(mpp: float, kinds: list[str]) -> None:
    # 808 · 0.2462 / 1024 = 0.194 and 3235 · 0.2462 / 1024 = 0.778; at 0.5 µm both would be twice as large.
    metadata = {"cell": dict(REAL["cell"]), "tissue": dict(REAL["tissue"]), "mpp_x": mpp}
    for section in ("cell", "tissue"):
        del metadata[section]["resized_mpp_x"]
    warnings = resolution_warnings(metadata, "p")
    assert [kind for kind in ("cell", "tissue") if any(f"the {kind} patch" in w for w in warnings)] == kinds
    assert resolution_warnings({"mpp_x": mpp}, "p") == []
