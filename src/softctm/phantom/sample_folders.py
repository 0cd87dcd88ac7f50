"""Writes drawn pairs as the container's input, or as an OCELOT release."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softctm.errors import InputError, UsageError
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP, WINDOW_SIZE, CellTissuePair
from softctm.phantom import DrawnTruth, draw_pair
from softctm.storage.files import prepare_folder, write_bytes_atomically, write_json_atomically
from softctm.storage.text_files import read_json
from softctm.writers import points_document

PAIRS_PER_PATIENT = 2
"""As in a release: a slide gives several pairs, so a split by pair would leak."""

SLIDE_BOX = 816
"""Side of the cell patch in pixels of the synthetic slide; `WINDOW_STEP` is a whole number of them."""

SLIDE_MPP = CELL_MPP * PATCH_SIZE / SLIDE_BOX
"""µm per pixel of the synthetic slide, 0.251 as in real ones."""

JPEG_QUALITY = 78
_MARK = "SYNTHETIC"
"""Ends the slide names of drawn pairs, and tells them from real ones."""

ORGANS = ("kidney", "head-and-neck", "prostate", "stomach", "endometrium", "bladder")
SEEDS_APART = 100_000
"""Scenes of different seeds never coincide while there are fewer pairs than this."""


@dataclass(frozen=True, eq=False)
class DrawnPair:
    """A pair, what is true of it, and its entry in the metadata."""

    pair: CellTissuePair
    truth: DrawnTruth
    metadata: dict[str, Any]


def draw_pairs(count: int, seed: int) -> Iterator[DrawnPair]:
    """Draw `count` pairs one after the other, two a patient; named 001, 002, …

    Raises
    ------
    UsageError
        If there would be no pair, or more than can be kept apart from the next seed's.
    """
    if not 1 <= count <= SEEDS_APART:
        raise UsageError(f"--pairs must lie in 1 … {SEEDS_APART}, not {count}")
    if seed < 0:
        raise UsageError(f"--seed must not be negative, not {seed}")
    return _drawn(count, seed)  # apart, so that the numbers are checked at once, not with the first pair


def _drawn(count: int, seed: int) -> Iterator[DrawnPair]:
    for index in range(count):
        patient = index // PAIRS_PER_PATIENT
        pair, truth = draw_pair(
            seed * SEEDS_APART + index,
            patient=seed * SEEDS_APART + patient,
            # Of one length, so that the list of metadata is in the names' plain order.
            name=f"{index + 1:0{max(3, len(str(count)))}d}",
        )
        yield DrawnPair(pair, truth, _metadata(pair, seed, patient, index % PAIRS_PER_PATIENT))


def drawn_files(folder: Path) -> list[Path]:
    """Files that an earlier run drew into `folder`, by its `metadata.json`; none where that is another's."""
    try:
        document = read_json(folder / "metadata.json")
        is_release = isinstance(document, dict)
        entries = list(document["sample_pairs"].values() if is_release else document)
        ours = bool(entries) and all(entry["slide_name"].endswith(_MARK) for entry in entries)
    except (InputError, KeyError, TypeError, AttributeError):
        return []
    if not ours:
        return []
    places = _RELEASE_FILES if is_release else _CONTAINER_FILES
    found = (path for place in places for path in sorted(folder.glob(place)))
    drawn = [path for path in found if _is_drawn(path.stem, len(entries))]
    truth = folder / "truth/cell_gt.json"
    return [folder / "metadata.json", *([truth] if not is_release and truth.exists() else []), *drawn]


def _is_drawn(name: str, count: int) -> bool:
    """Whether a name is one of those that `draw_pairs` gives to so many pairs, or to the first of more."""
    return len(name) >= 3 and name.isdecimal() and 1 <= int(name) <= count


def write_container_input(folder: Path, pairs: Iterator[DrawnPair]) -> int:
    """Write `images/{cell,tissue}_patches/ID.jpg`, `metadata.json` (a list) and `truth/`; return the count.

    `truth/cell_gt.json` has the form of the challenge's ground truth, `truth/tissue/ID.png` OCELOT's.
    """
    prepare_folder(folder)
    metadata, cells = [], []
    for drawn in pairs:
        name = drawn.pair.name
        metadata.append(drawn.metadata)
        # By this file a run that was interrupted knows its own: it comes first.
        write_json_atomically(folder / "metadata.json", metadata, indent=1)
        _write_image(folder / "images/cell_patches" / f"{name}.jpg", drawn.pair.cell)
        _write_image(folder / "images/tissue_patches" / f"{name}.jpg", drawn.pair.tissue)
        _write_image(folder / "truth/tissue" / f"{name}.png", drawn.truth.tissue)
        cells.append(drawn.truth.cells)
    prepare_folder(folder / "truth")
    truth = {**points_document(cells), "num_images": len(cells)}
    write_json_atomically(folder / "truth/cell_gt.json", truth)
    return len(metadata)


def write_ocelot_release(folder: Path, pairs: Iterator[DrawnPair]) -> int:
    """Write images, annotations and `metadata.json` as an OCELOT release has them; return the count."""
    prepare_folder(folder)
    sample_pairs: dict[str, Any] = {}
    document = {
        "general_info": {"description": "Synthetic H&E-like pairs in the layout of an OCELOT release"},
        "sample_pairs": sample_pairs,
    }
    for drawn in pairs:
        name = drawn.pair.name
        sample_pairs[name] = drawn.metadata
        write_json_atomically(folder / "metadata.json", document, indent=1)
        _write_image(folder / "images/train/cell" / f"{name}.jpg", drawn.pair.cell)
        _write_image(folder / "images/train/tissue" / f"{name}.jpg", drawn.pair.tissue)
        _write_image(folder / "annotations/train/tissue" / f"{name}.png", drawn.truth.tissue)
        cells = drawn.truth.cells
        rows = "".join(
            f"{x},{y},{label}\n" for x, y, label in zip(cells.x, cells.y, cells.label, strict=True)
        )
        _write(folder / "annotations/train/cell" / f"{name}.csv", rows.encode())
    return len(sample_pairs)


_CONTAINER_FILES = ("images/cell_patches/*.jpg", "images/tissue_patches/*.jpg", "truth/tissue/*.png")
_RELEASE_FILES = (
    "images/train/cell/*.jpg",
    "images/train/tissue/*.jpg",
    "annotations/train/cell/*.csv",
    "annotations/train/tissue/*.png",
)
"""Of the pairs."""

LAYOUTS: dict[str, Callable[[Path, Iterator[DrawnPair]], int]] = {
    "container": write_container_input,
    "ocelot": write_ocelot_release,
}
"""Name → writer."""


def _metadata(pair: CellTissuePair, seed: int, patient: int, part: int) -> dict[str, Any]:
    """The entry that an OCELOT release would have for the pair."""
    zoomed_box = SLIDE_BOX * PATCH_SIZE // WINDOW_SIZE
    corner = 10_000 + 2 * zoomed_box * part
    window = pair.window
    cell_x, cell_y = (corner + at * zoomed_box // PATCH_SIZE for at in (window.x, window.y))
    return {
        "slide_name": f"TCGA-{seed % 100:02d}-{patient:04d}-01Z-00-DX1.{_MARK}",
        "cell": _box(cell_x, cell_y, SLIDE_BOX, CELL_MPP),
        "tissue": _box(corner, corner, zoomed_box, TISSUE_MPP),
        "patch_x_offset": (window.x + WINDOW_SIZE / 2) / PATCH_SIZE,
        "patch_y_offset": (window.y + WINDOW_SIZE / 2) / PATCH_SIZE,
        "mpp_x": SLIDE_MPP,
        "mpp_y": SLIDE_MPP,
        "organ": ORGANS[patient % len(ORGANS)],
        "subset": "train",
    }


def _box(x: int, y: int, side: int, mpp: float) -> dict[str, float]:
    return {
        "x_start": x, "y_start": y, "x_end": x + side, "y_end": y + side,
        "resized_mpp_x": mpp, "resized_mpp_y": mpp,
    }  # fmt: skip


def _write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    encoded = io.BytesIO()
    kind = "PNG" if path.suffix == ".png" else "JPEG"
    Image.fromarray(pixels).save(encoded, kind, quality=JPEG_QUALITY, optimize=True)
    _write(path, encoded.getvalue())


def _write(path: Path, content: bytes) -> None:
    prepare_folder(path.parent)
    write_bytes_atomically(path, content)
