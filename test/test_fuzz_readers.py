"""Damaged input of every kind gives a named error or a valid pair: never another error, a hang or a blow-up.

Every case is made from a seed, so that a failure can be repeated: the test's name holds it.
"""

from __future__ import annotations

import io
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from inputs import entry, patch, stack_paths, write_metadata, write_pairs
from PIL import Image

from softctm.errors import SoftCTMError
from softctm.readers import open_pairs

FAST, FULL = 25, 400
"""Cases a kind of file, in the fast suite and with `-m slow`."""

MAX_SECONDS = 20.0
MAX_GROWTH_MB = 700


def encoded(form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(patch(0)).save(buffer, form, **options)
    return buffer.getvalue()


def tiff(**options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.concatenate([patch(0), patch(1)]), photometric="rgb", **options)
    return buffer.getvalue()


def deep(planar: bool, **options: Any) -> bytes:
    """16 bits a channel, all of them in use."""
    buffer, pixels = io.BytesIO(), np.concatenate([patch(0), patch(1)]).astype(np.uint16) * 257
    if planar:
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    tifffile.imwrite(
        buffer, pixels, photometric="rgb", planarconfig="separate" if planar else "contig", **options
    )
    return buffer.getvalue()


def deep_png(folder: Path) -> bytes:
    path = folder / "example.png"
    sitk.WriteImage(sitk.GetImageFromArray(patch(0).astype(np.uint16) * 257, isVector=True), str(path))
    data = path.read_bytes()
    path.unlink()
    return data


def mha(folder: Path, compressed: bool) -> bytes:
    path = folder / "example.mha"
    image = sitk.GetImageFromArray(np.concatenate([patch(0), patch(1)]), isVector=True)
    sitk.WriteImage(image, str(path), useCompression=compressed)
    data = path.read_bytes()
    path.unlink()
    return data


def palette() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(patch(0)).quantize(16).save(buffer, "PNG", transparency=2)
    return buffer.getvalue()


def sockets() -> bytes:
    places = {"cell": "images/cell_patches", "tissue": "images/tissue_patches", "metadata": "metadata.json"}
    values = [
        {"socket": {"slug": slug, "relative_path": place}, "value": None} for slug, place in places.items()
    ]
    return json.dumps(values).encode()


# Kind → its bytes, and the file of the input that they take the place of.
KINDS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "jpeg": (lambda folder: encoded("JPEG"), "images/cell_patches/000.jpg"),
    "png": (lambda folder: encoded("PNG", compress_level=1), "images/cell_patches/000.png"),
    "deep png": (deep_png, "images/cell_patches/000.png"),
    "palette png": (lambda folder: palette(), "images/cell_patches/000.png"),
    "tiff": (lambda folder: encoded("TIFF", compression="tiff_lzw"), "images/cell_patches/000.tif"),
    "stacked tiff": (lambda folder: tiff(rowsperstrip=64, compression="zlib"), "stack.tif"),
    "uncompressed tiff": (lambda folder: tiff(), "stack.tif"),
    "tiled tiff": (lambda folder: tiff(tile=(256, 256), compression="zlib", bigtiff=True), "stack.tif"),
    "deep tiff": (
        lambda folder: deep(False, rowsperstrip=64, compression="zlib", predictor=True),
        "stack.tif",
    ),
    "planar deep tiff": (lambda folder: deep(True), "stack.tif"),
    "bmp": (lambda folder: encoded("BMP"), "images/cell_patches/000.bmp"),
    "mha": (lambda folder: mha(folder, False), "stack.mha"),
    "compressed mha": (lambda folder: mha(folder, True), "stack.mha"),
    "metadata": (lambda folder: json.dumps([entry(0), entry(1)]).encode(), "metadata.json"),
    "sockets": (lambda folder: sockets(), "inputs.json"),
}


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage of the usual kinds, near the ends more often than between, where headers and tables lie."""
    damaged = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        size = len(damaged)
        if not size:
            break
        near = min(size, 600)
        place = int(
            rng.choice(
                [rng.integers(size), rng.integers(near), size - 1 - rng.integers(near)], p=[0.3, 0.4, 0.3]
            )
        )
        match int(rng.integers(7)):
            case 0:
                damaged[place] ^= 1 << int(rng.integers(8))
            case 1:
                damaged[place] = int(rng.choice([0, 1, 127, 128, 255, 45, 48, 57]))
            case 2:
                damaged[place : place + 4] = int(
                    rng.choice([0, 1, 1024, 2**16, 2**31 - 1, 2**32 - 1])
                ).to_bytes(4, "little")
            case 3:
                del damaged[place:]
            case 4:
                del damaged[place : place + int(rng.integers(1, 64))]
            case 5:
                damaged[place:place] = rng.bytes(int(rng.integers(1, 64)))
            case 6:
                length = int(rng.integers(1, 256))
                source = int(rng.integers(size))
                damaged[place : place + length] = damaged[source : source + length]
    return bytes(damaged)


def write_input(folder: Path, target: str, data: bytes) -> Path:
    """A good input but for `data`; returns the file that `data` is written to."""
    if target.startswith("stack"):
        path = stack_paths(folder, Path(target).suffix)["cell"]
        stack_paths(folder, Path(target).suffix)["tissue"].write_bytes(data)
        write_metadata(folder, [entry(0), entry(1)])
    else:
        write_pairs(folder, 2)
        path = folder / target
        path.with_suffix(".png").unlink(missing_ok=True)
    return path


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def check_message(message: str, culprit: str = "") -> None:
    assert "\n" not in message
    assert len(message) < 600
    assert culprit in message


def try_everything(folder: Path) -> str:
    """Read all pairs; what happened, in a word."""
    try:
        source = open_pairs(folder)
    except SoftCTMError as error:
        check_message(str(error))
        return "refused"
    outcome = "read"
    for index in range(min(len(source), 4)):
        try:
            pair = source.read(index)
        except SoftCTMError as error:
            check_message(str(error), source.names[index])
            outcome = "pair refused"
        else:
            assert pair.cell.shape == pair.tissue.shape == (1024, 1024, 3)
            assert pair.cell.dtype == pair.tissue.dtype == np.uint8
    return outcome


def fuzz(folder: Path, kind: str, cases: int) -> None:
    make, target = KINDS[kind]
    good = make(folder)
    path = write_input(folder, target, good)
    path.write_bytes(good)
    assert try_everything(folder) == ("pair refused" if kind == "palette png" else "read")
    outcomes = dict.fromkeys(("read", "refused", "pair refused"), 0)
    for seed in range(cases):
        path.write_bytes(mutated(good, np.random.default_rng([seed, *kind.encode()])))
        memory, begin = peak_mb(), time.monotonic()
        try:
            outcomes[try_everything(folder)] += 1
        except Exception as error:
            pytest.fail(f"{kind}, seed {seed}: {type(error).__name__}: {error}")
        assert time.monotonic() - begin < MAX_SECONDS, f"{kind}, seed {seed}: took too long"
        assert peak_mb() - memory < MAX_GROWTH_MB, f"{kind}, seed {seed}: took too much memory"
    print(f"{kind}: {outcomes}")
    assert outcomes["read"] < cases


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.replace(" ", "-"))
def test_a_few_damaged_files(tmp_path: Path, kind: str) -> None:
    fuzz(tmp_path, kind, FAST)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.replace(" ", "-"))
def test_many_damaged_files(tmp_path: Path, kind: str) -> None:
    fuzz(tmp_path, kind, FULL)


NUMBERS = [0, -1, 1e308, -1e308, 10**400, float("nan"), float("inf"), None, True, "7", "", [], {}, 0.5, 58243]


def test_metadata_with_any_value_anywhere(tmp_path: Path) -> None:
    """Every value in place of every number, and of every section: a window or a named error."""
    write_pairs(tmp_path, 1)
    whole = entry() | {"patch_x_offset": 0.5, "patch_y_offset": 0.5, "mpp_x": 0.25}
    whole["cell"]["resized_mpp_x"] = 0.2
    places = [(key,) for key in whole] + [(kind, key) for kind in ("cell", "tissue") for key in whole[kind]]
    for place in places:
        for value in NUMBERS:
            changed = json.loads(json.dumps(whole))
            section = changed
            for key in place[:-1]:
                section = section[key]
            section[place[-1]] = value
            write_metadata(tmp_path, [changed])
            try_everything(tmp_path)
