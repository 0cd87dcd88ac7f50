"""Stacked images: every storage form gives the same patches, in memory that does not grow."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from inputs import PEAK_MEMORY, Pixels, entry, patch, stack_paths, write_metadata
from PIL import Image

from softctm.errors import InputError, PairError
from softctm.readers import open_pairs
from softctm.readers.metaimage import MetaImage

COUNT = 3


def stack(offset: int = 0, count: int = COUNT) -> Pixels:
    return np.concatenate([patch(index + offset) for index in range(count)])


def save_with_pillow(path: Path, pixels: Pixels, **options: Any) -> None:
    Image.fromarray(pixels).save(path, **options)


def save_with_tifffile(path: Path, pixels: Pixels, **options: Any) -> None:
    tifffile.imwrite(path, pixels, photometric="rgb", **options)


def save_planes(path: Path, pixels: Pixels) -> None:
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", rowsperstrip=100)


TIFFS = {
    "pillow uncompressed": (save_with_pillow, {}),
    "pillow deflate": (save_with_pillow, {"compression": "tiff_adobe_deflate"}),
    "pillow lzw": (save_with_pillow, {"compression": "tiff_lzw"}),
    "pillow packbits": (save_with_pillow, {"compression": "packbits"}),
    "pillow big": (save_with_pillow, {"big_tiff": True}),
    "one uncompressed strip": (save_with_tifffile, {}),
    "big-endian": (save_with_tifffile, {"byteorder": ">", "bigtiff": True}),
    "strips of odd height": (save_with_tifffile, {"rowsperstrip": 37}),
    "tiles": (save_with_tifffile, {"tile": (256, 256)}),
    "deflated tiles across patches": (save_with_tifffile, {"tile": (272, 240), "compression": "zlib"}),
    "one deflated strip": (save_with_tifffile, {"rowsperstrip": COUNT * 1024, "compression": "zlib"}),
    "planes": (save_planes, {}),
}


def save_jpeg_tiles(path: Path, pixels: Pixels) -> None:
    """As scanners and the platform store them: each tile a JPEG with subsampled colors."""
    tiles = []
    for y in range(0, len(pixels), 512):
        for x in range(0, 1024, 512):
            buffer = io.BytesIO()
            Image.fromarray(pixels[y : y + 512, x : x + 512]).save(buffer, "JPEG", subsampling="4:2:0")
            tiles.append(buffer.getvalue())
    tifffile.imwrite(
        path,
        iter(tiles),
        shape=pixels.shape,
        dtype=np.uint8,
        photometric="rgb",
        tile=(512, 512),
        compression="zlib",
    )
    # tifffile marks tiles as JPEG only where a codec library is installed that is not needed otherwise.
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages.first.tags["Compression"].overwrite(7)
        tiff.pages.first.tags["PhotometricInterpretation"].overwrite(6)


def save_mha(path: Path, pixels: Pixels, compressed: bool) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(path), useCompression=compressed)


def save_slices(path: Path, pixels: Pixels, compressed: bool) -> None:
    save_mha(path, pixels.reshape(-1, 1024, 1024, 3), compressed)


MHAS = {
    "mha": (save_mha, {"compressed": False}),
    "compressed mha": (save_mha, {"compressed": True}),
    "slices": (save_slices, {"compressed": False}),
    "compressed slices": (save_slices, {"compressed": True}),
}


def write_stack(folder: Path, suffix: str, save: Any, options: dict[str, Any]) -> None:
    paths = stack_paths(folder, suffix)
    save(paths["cell"], stack(), **options)
    save(paths["tissue"], stack(100), **options)
    write_metadata(folder, [entry(index, 7) for index in range(COUNT)])


@pytest.mark.parametrize(
    ("suffix", "form"),
    [(".tif", form) for form in TIFFS] + [(".mha", form) for form in MHAS],
    ids=lambda value: value.replace(" ", "-"),
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 2)], ids=["in-order", "any-order"])
def test_every_storage_form_gives_the_patches(
    tmp_path: Path, suffix: str, form: str, order: tuple[int, ...]
) -> None:
    save, options = (TIFFS | MHAS)[form]
    write_stack(tmp_path, suffix, save, options)
    source = open_pairs(tmp_path)
    assert source.names == ["image_0", "image_1", "image_2"]
    for index in order:
        pair = source.read(index)
        assert np.array_equal(pair.cell, patch(index))
        assert np.array_equal(pair.tissue, patch(index + 100))
        assert (pair.window.x, pair.window.y) == (index, 7)
    assert source.warnings == []


@pytest.mark.parametrize("tile", [None, (512, 512)], ids=["strips", "tiles"])
def test_jpeg_compressed_stack_is_what_pillow_reads(tmp_path: Path, tile: tuple[int, int] | None) -> None:
    """The comparison is with Pillow's reading of the whole image; libtiff's JPEG colors are its business."""
    paths = stack_paths(tmp_path)
    for path in paths.values():
        if tile is None:
            save_with_pillow(path, stack(), compression="jpeg")
        else:
            save_jpeg_tiles(path, stack())
    write_metadata(tmp_path, [entry()] * COUNT)
    whole = np.asarray(Image.open(paths["cell"]).convert("RGB"))
    source = open_pairs(tmp_path)
    for index in range(COUNT):
        assert np.array_equal(source.read(index).cell, whole[1024 * index : 1024 * (index + 1)])


def test_pyramid_is_read_at_full_resolution(tmp_path: Path) -> None:
    for path in stack_paths(tmp_path).values():
        with tifffile.TiffWriter(path) as writer:
            writer.write(stack(), photometric="rgb", tile=(256, 256), metadata=None)
            writer.write(stack()[::2, ::2], photometric="rgb", tile=(256, 256), subfiletype=1, metadata=None)
    write_metadata(tmp_path, [entry()] * COUNT)
    assert np.array_equal(open_pairs(tmp_path).read(1).cell, patch(1))


def test_a_stack_of_one_needs_no_common_name(tmp_path: Path) -> None:
    paths = stack_paths(tmp_path)
    for path in paths.values():
        save_with_pillow(path, patch(1))
    write_metadata(tmp_path, [entry()])
    assert open_pairs(tmp_path).names == ["image_0"]


def test_one_tiff_pair_with_common_stem_is_found_by_stem(tmp_path: Path) -> None:
    for path in stack_paths(tmp_path).values():
        save_with_pillow(path.with_name("a.tif"), patch(1))
    write_metadata(tmp_path, {"sample_pairs": {"a": entry()}})
    source = open_pairs(tmp_path)
    assert source.names == ["a"]
    assert np.array_equal(source.read(0).cell, patch(1))


def test_the_reference_stack_is_the_same_as_one_png_a_pair(shared: Path, tmp_path: Path) -> None:
    reference = shared / "reference" / "inference" / "input"
    for kind in ("cell", "tissue"):
        with Image.open(reference / "images" / f"{kind}_patches" / f"{kind}s.tif") as whole:
            for index in range(whole.height // 1024):
                path = tmp_path / "images" / f"{kind}_patches" / f"{index:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                whole.crop((0, 1024 * index, 1024, 1024 * (index + 1))).save(path)
    (tmp_path / "metadata.json").write_bytes((reference / "metadata.json").read_bytes())
    stacked, single = open_pairs(reference), open_pairs(tmp_path)
    assert len(stacked) == len(single) == 3
    for index in range(3):
        first, second = stacked.read(index), single.read(index)
        assert np.array_equal(first.cell, second.cell)
        assert np.array_equal(first.tissue, second.tissue)
        assert first.window == second.window


@pytest.mark.parametrize(
    ("cell", "tissue", "message"),
    [
        (stack(0, 2), stack(0, 3), "cells.tif holds 2 patches and .*tissues.tif 3"),
        (stack()[:3000], stack()[:3000], "3000, is not a multiple of 1024"),
        (stack()[:, :1000], stack(), "is 1000 × 3072 pixels; it must be 1024 wide"),
    ],
    ids=["unequal-counts", "height", "width"],
)
def test_stacks_of_wrong_size(tmp_path: Path, cell: Pixels, tissue: Pixels, message: str) -> None:
    paths = stack_paths(tmp_path)
    save_with_pillow(paths["cell"], cell)
    save_with_pillow(paths["tissue"], tissue)
    write_metadata(tmp_path, [entry()] * COUNT)
    with pytest.raises(InputError, match=message):
        open_pairs(tmp_path)


def test_several_pages_are_refused(tmp_path: Path) -> None:
    for path in stack_paths(tmp_path).values():
        tifffile.imwrite(path, stack().reshape(-1, 1024, 1024, 3), photometric="rgb")
    write_metadata(tmp_path, [entry()] * COUNT)
    with pytest.raises(InputError, match=r"cells\.tif: holds more than one image; put the patches one under"):
        open_pairs(tmp_path)


def test_a_turned_stack_is_refused(tmp_path: Path) -> None:
    for path in stack_paths(tmp_path).values():
        save_with_pillow(path, stack(), tiffinfo={274: 3})
    write_metadata(tmp_path, [entry()] * COUNT)
    with pytest.raises(InputError, match="orientation"):
        open_pairs(tmp_path)


def test_metadata_by_stem_cannot_serve_a_stack(tmp_path: Path) -> None:
    write_stack(tmp_path, ".tif", save_with_pillow, {})
    write_metadata(tmp_path, {"sample_pairs": {"a": entry(), "b": entry(), "c": entry()}})
    with pytest.raises(InputError, match="a stack has no stems"):
        open_pairs(tmp_path)


def test_a_cut_off_tiff_is_refused_by_name(tmp_path: Path) -> None:
    write_stack(tmp_path, ".tif", save_with_tifffile, {})
    path = stack_paths(tmp_path)["tissue"]
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"tissues\.tif: is cut off"):
        open_pairs(tmp_path)


def test_damage_to_one_patch_leaves_the_others(tmp_path: Path) -> None:
    write_stack(tmp_path, ".tif", save_with_pillow, {"compression": "tiff_adobe_deflate"})
    path = stack_paths(tmp_path)["cell"]
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        strip = 1500 // page.rowsperstrip
        start, length = page.dataoffsets[strip], page.databytecounts[strip]
    data = bytearray(path.read_bytes())
    data[start : start + length] = b"\xff" * length
    path.write_bytes(data)
    source = open_pairs(tmp_path)
    for index in (0, 2):
        assert np.array_equal(source.read(index).cell, patch(index))
    with pytest.raises(PairError, match=r"pair image_1: images/cell_patches/cells\.tif: .*cannot be decoded"):
        source.read(1)


def test_a_tiff_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    write_stack(tmp_path, ".tif", save_with_pillow, {})
    path = stack_paths(tmp_path)["cell"]
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages.first.tags["ImageLength"].overwrite(2**31 - 1024, dtype="I")
    with pytest.raises(InputError, match=r"cells\.tif: claims 2147482624 rows"):
        open_pairs(tmp_path)


def test_a_compressed_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A small file that claims, and holds, far more patches than metadata name: only those are decoded."""
    for path in stack_paths(tmp_path, ".mha").values():
        rows = 9_000 * 1024
        packer = zlib.compressobj(9)
        header = (
            "ObjectType = Image\nNDims = 2\nBinaryData = True\nCompressedData = True\n"
            f"DimSize = 1024 {rows}\nElementNumberOfChannels = 3\nElementType = MET_UCHAR\n"
            "ElementDataFile = LOCAL\n"
        )
        path.write_bytes(header.encode() + packer.compress(bytes(20 * 1024 * 1024 * 3)) + packer.flush())
    write_metadata(tmp_path, [entry()])
    source = open_pairs(tmp_path)
    assert len(source) == 9_000
    assert not source.read(0).cell.any()
    with pytest.raises(PairError, match="no entry number 1 "):
        source.read(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ElementDataFile": "/etc/passwd"}, "lie in another file"),
        ({"DimSize": "1024 99999872"}, "is cut off|claims"),
        ({"DimSize": "1024 -1024"}, "do not describe an image"),
        ({"DimSize": "x"}, "not a readable MetaImage"),
        ({"ElementType": "MET_FLOAT"}, "MET_FLOAT"),
        ({"ElementNumberOfChannels": "7"}, "7 channels"),
        ({"BinaryData": "False"}, "not plain binary"),
    ],
)
def test_metaimage_headers_that_lie(tmp_path: Path, change: dict[str, str], message: str) -> None:
    write_stack(tmp_path, ".mha", save_mha, {"compressed": False})
    path = stack_paths(tmp_path, ".mha")["cell"]
    head, mark, pixels = path.read_bytes().partition(b"ElementDataFile = LOCAL\n")
    lines = dict(line.split(" = ", 1) for line in (head + mark).decode().splitlines())
    lines |= change
    path.write_bytes("".join(f"{k} = {v}\n" for k, v in lines.items()).encode() + pixels)
    with pytest.raises(InputError, match=rf"cells\.mha: .*({message})"):
        open_pairs(tmp_path)


def test_a_compressed_metaimage_cut_off_loses_only_its_end(tmp_path: Path) -> None:
    write_stack(tmp_path, ".mha", save_mha, {"compressed": True})
    path = stack_paths(tmp_path, ".mha")["tissue"]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 9 // 10])
    source = open_pairs(tmp_path)
    assert np.array_equal(source.read(0).tissue, patch(100))
    with pytest.raises(PairError, match=r"pair image_2: .*tissues\.mha: its compressed pixels are damaged"):
        source.read(2)


def peak_memory_mb(folder: Path) -> float:
    """Peak resident memory of a process that reads all pairs of `folder`."""
    code = textwrap.dedent(
        f"""
        import sys
        from softctm.readers import open_pairs
        source = open_pairs(sys.argv[1])
        for index in range(len(source)):
            source.read(index)
        print({PEAK_MEMORY})
        """
    )
    run = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    return float(run.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["strips", "tiles", "mha", "compressed mha"])
def test_memory_does_not_grow_with_the_stack(tmp_path: Path, form: str) -> None:
    peaks = {}
    for count in (3, 130):
        folder = tmp_path / str(count)
        for path in stack_paths(folder, ".mha" if "mha" in form else ".tif").values():
            pixels = stack(0, count)
            if "mha" in form:
                save_mha(path, pixels, form.startswith("compressed"))
            else:
                layout = {"rowsperstrip": 21} if form == "strips" else {"tile": (256, 256)}
                save_with_tifffile(path, pixels, compression="zlib", **layout)
        write_metadata(folder, [entry()] * count)
        peaks[count] = peak_memory_mb(folder)
    print(f"{form}: peak memory {peaks[3]:.0f} MB for 3 pairs, {peaks[130]:.0f} MB for 130")
    assert peaks[130] - peaks[3] < 50


@pytest.mark.slow
@pytest.mark.long
def test_unpacking_once_beats_simpleitk_by_patches(tmp_path: Path) -> None:
    """The reason why compressed MetaImages are unpacked here: SimpleITK starts over for every patch."""
    path, count = tmp_path / "stack.mha", 130
    save_mha(path, stack(0, count), compressed=True)

    def by_simpleitk(patches: int) -> Iterator[Pixels]:
        for first in range(0, count, patches):
            reader = sitk.ImageFileReader()
            reader.SetImageIO("MetaImageIO")
            reader.SetFileName(str(path))
            reader.SetExtractIndex([0, 1024 * first])
            reader.SetExtractSize([1024, 1024 * min(patches, count - first)])
            yield from sitk.GetArrayFromImage(reader.Execute()).reshape(-1, 1024, 1024, 3)

    own = MetaImage(path, "stack.mha")
    ways = {
        "ours": map(own.read, range(count)),
        "SimpleITK": by_simpleitk(1),
        "SimpleITK, slabs of 16": by_simpleitk(16),
    }
    seconds = {}
    for name, patches in ways.items():
        start = time.perf_counter()
        for index, pixels in enumerate(patches):
            assert np.array_equal(pixels, patch(index))
        seconds[name] = time.perf_counter() - start
    print({name: f"{value:.1f} s" for name, value in seconds.items()})
    assert seconds["ours"] < min(seconds["SimpleITK"], seconds["SimpleITK, slabs of 16"]) / 2


def test_a_write_that_failed_does_not_shift_the_next_pairs_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3 * 1024, 1024, 3), np.uint8)
    path = tmp_path / "cells.mha"
    save_mha(path, pixels, compressed=True)
    image = MetaImage(path, "cells.mha")
    np.testing.assert_array_equal(image.read(0), pixels[:1024])
    unpacked = image._unpacked
    assert unpacked is not None
    assert unpacked._copy is not None

    class Full:
        """The disk is full for once, after some of it is written."""

        def __init__(self, file: Any) -> None:
            self._file, self._written = file, 0

        def write(self, data: bytes) -> int:
            self._written += 1
            if self._written == 2:
                raise OSError(28, "No space left on device")
            return int(self._file.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    unpacked._copy = Full(unpacked._copy)  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"cannot be unpacked into .*No space left"):
        image.read(1)
    for index in (1, 2, 0):
        np.testing.assert_array_equal(image.read(index), pixels[1024 * index : 1024 * (index + 1)])
