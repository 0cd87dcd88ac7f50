"""One image a pair: pairing, numbering, metadata, image kinds, and every bad file."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from inputs import Pixels, entry, patch, write_metadata, write_pairs
from PIL import Image

from softctm.errors import InputError, PairError, UsageError
from softctm.readers import open_pairs

CELL = "images/cell_patches"
TISSUE = "images/tissue_patches"


def refusal(folder: Path, index: int = 0) -> str:
    """The message with which a pair is refused."""
    source = open_pairs(folder)
    with pytest.raises(PairError) as caught:
        source.read(index)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"pair {source.names[index]}: ")
    return message


# --- finding pairs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
def test_pairs_in_sorted_order_of_stems(tmp_path: Path, suffix: str) -> None:
    source = open_pairs(write_pairs(tmp_path, 3, suffix))
    assert source.names == ["000", "001", "002"]
    assert len(source) == 3
    for index in range(3):
        pair = source.read(index)
        assert np.array_equal(pair.cell, patch(index))
        assert np.array_equal(pair.tissue, patch(index + 100))
        assert (pair.window.x, pair.window.y, pair.name) == (index, 5, f"00{index}")
        assert source.metadata(index) == entry(index, 5)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_pairs(tmp_path: Path, suffix: str) -> None:
    source = open_pairs(write_pairs(tmp_path, 1, suffix))
    difference = source.read(0).cell.astype(int) - patch(0)
    assert np.abs(difference).mean() < 5


def test_mha_pairs_beside_other_formats(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    (tmp_path / CELL / "001.png").unlink()
    image = sitk.GetImageFromArray(patch(1), isVector=True)
    sitk.WriteImage(image, str(tmp_path / CELL / "001.mha"), useCompression=True)
    assert np.array_equal(open_pairs(tmp_path).read(1).cell, patch(1))


def test_metadata_by_stem(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    write_metadata(tmp_path, {"sample_pairs": {"001": entry(30), "000": entry(20), "elsewhere": entry(9)}})
    source = open_pairs(tmp_path)
    assert [source.read(index).window.x for index in range(2)] == [20, 30]


def test_a_missing_partner_keeps_its_number_and_metadata(tmp_path: Path) -> None:
    write_pairs(tmp_path, 4)
    (tmp_path / TISSUE / "001.png").unlink()
    (tmp_path / CELL / "002.png").unlink()
    source = open_pairs(tmp_path)
    assert source.names == ["000", "001", "002", "003"]
    assert source.read(3).window.x == 3
    assert source.metadata(1) == entry(1, 5)
    assert f"no tissue image 001.* in {TISSUE}" in refusal(tmp_path, 1)
    assert f"no cell image 002.* in {CELL}" in refusal(tmp_path, 2)


def test_no_stem_in_common(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    for path in sorted((tmp_path / TISSUE).iterdir()):
        path.rename(path.with_name(f"tissue_{path.name}"))
    with pytest.raises(InputError, match="must share their name"):
        open_pairs(tmp_path)


def test_two_images_of_one_stem(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    Image.fromarray(patch(9)).save(tmp_path / CELL / "000.jpg")
    assert "000.jpg, 000.png); keep one" in refusal(tmp_path)
    assert open_pairs(tmp_path).read(1).name == "001"


def test_other_files_are_passed_over_and_mentioned(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1)
    (tmp_path / CELL / "Thumbs.db").write_bytes(b"x")
    (tmp_path / CELL / ".DS_Store").write_bytes(b"x")
    (tmp_path / CELL / "folder.png").mkdir()
    source = open_pairs(tmp_path)
    assert source.names == ["000"]
    assert len(source.warnings) == 1
    assert "Thumbs.db" in source.warnings[0]
    assert "DS_Store" not in source.warnings[0]


def test_accents_stored_in_either_way_are_one_name(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1)
    one, two = "Jos\u00e9", "Jose\u0301"
    (tmp_path / CELL / "000.png").rename(tmp_path / CELL / f"{one}.png")
    (tmp_path / TISSUE / "000.png").rename(tmp_path / TISSUE / f"{two}.png")
    write_metadata(tmp_path, {"sample_pairs": {two: entry(9)}})
    source = open_pairs(tmp_path)
    assert source.names == [one]
    assert source.read(0).window.x == 9
    (tmp_path / CELL / f"{two}.png").write_bytes((tmp_path / CELL / f"{one}.png").read_bytes())
    assert "which differ only in how accents are stored" in refusal(tmp_path)


@pytest.mark.parametrize("count", [9, 12])
def test_a_list_beside_names_whose_numeric_order_differs(tmp_path: Path, count: int) -> None:
    write_pairs(tmp_path, count)
    for kind in (CELL, TISSUE):
        for path in sorted((tmp_path / kind).iterdir()):
            path.rename(path.with_name(f"{int(path.stem) + 1}.png"))
    warnings = open_pairs(tmp_path).warnings
    if count == 9:
        assert warnings == []
    else:
        assert len(warnings) == 1
        assert "(0 → 1, 1 → 10, 2 → 11, 3 → 12, …)" in warnings[0]
        assert '"sample_pairs": {"1": …}' in warnings[0]
    write_metadata(tmp_path, {"sample_pairs": {str(i + 1): entry(i) for i in range(count)}})
    source = open_pairs(tmp_path)
    assert source.warnings == []
    index = source.names.index("9")
    assert source.read(index).window.x == 8


def test_a_release_that_lists_more_than_it_holds(tmp_path: Path) -> None:
    write_release(tmp_path, ("train",))
    entries = {
        name: entry() | {"subset": subset}
        for name, subset in (("000", "train"), ("001", "train"), ("002", "val"))
    }
    write_metadata(tmp_path, {"sample_pairs": entries})
    source = open_pairs(tmp_path)
    assert source.names == ["000"]
    assert source.warnings == [
        "metadata.json: lists pairs of 'train' without images (001); they are left out and not counted"
    ]


# --- folders that hold nothing usable --------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not exist; check --input"):
        open_pairs(tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        open_pairs(tmp_path / "f")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is empty: expected images/cell_patches/ and"):
        open_pairs(tmp_path)


def test_folder_with_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(
        InputError,
        match=r"holds no pairs: expected .* whole slides and single images are for `softctm slides`$",
    ):
        open_pairs(tmp_path)


@pytest.mark.parametrize("missing", [CELL, TISSUE])
def test_one_stream_missing(tmp_path: Path, missing: str) -> None:
    shutil.rmtree(write_pairs(tmp_path, 1) / missing)
    with pytest.raises(InputError, match=f"{missing}: the folder is missing"):
        open_pairs(tmp_path)


def test_empty_patch_folders(tmp_path: Path) -> None:
    for name in (CELL, TISSUE):
        (tmp_path / name).mkdir(parents=True)
    write_metadata(tmp_path, [])
    with pytest.raises(InputError, match="hold no images"):
        open_pairs(tmp_path)


def test_folders_with_other_images_say_what_is_there(tmp_path: Path) -> None:
    for name in (CELL, TISSUE):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.webp").touch()
    (tmp_path / CELL / "b.gif").touch()
    write_metadata(tmp_path, [])
    with pytest.raises(
        InputError, match=r"\(they hold 2 \.webp, 1 \.gif\); put \.jpg, .*\.bmp.* files there"
    ):
        open_pairs(tmp_path)


# --- metadata --------------------------------------------------------------------------------------------


def test_missing_metadata(tmp_path: Path) -> None:
    (write_pairs(tmp_path, 1) / "metadata.json").unlink()
    with pytest.raises(InputError, match=f"^metadata.json: is missing; add it as {tmp_path}/metadata.json$"):
        open_pairs(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"null",
        b'"text"',
        b"{}",
        b'{"sample_pairs": []}',
    ],
    ids=lambda content: repr(content[:12]),
)
def test_malformed_metadata(tmp_path: Path, content: bytes) -> None:
    (write_pairs(tmp_path, 1) / "metadata.json").write_bytes(content)
    with pytest.raises(InputError, match=r"metadata\.json: .*(correct it|save it as UTF-8)"):
        open_pairs(tmp_path)


@pytest.mark.parametrize("names", [("000", "000"), ("caf\u00e9", "cafe\u0301")])
def test_two_entries_for_one_pair_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    """One of them would be taken without a word, perhaps with another place of the cell patch."""
    entries = ", ".join(f'"{name}": {json.dumps(entry(x))}' for x, name in enumerate(names))
    (write_pairs(tmp_path, 1) / "metadata.json").write_text(f'{{"sample_pairs": {{{entries}}}}}')
    with pytest.raises(InputError, match=r'^metadata\.json: has two (values for|entries) "(000|café)"'):
        open_pairs(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_metadata_as_windows_writes_them(tmp_path: Path, encoding: str) -> None:
    (write_pairs(tmp_path, 1) / "metadata.json").write_text(json.dumps([entry(4)]), encoding=encoding)
    assert open_pairs(tmp_path).read(0).window.x == 4


def test_metadata_list_too_short_serves_the_first_pairs(tmp_path: Path) -> None:
    write_metadata(write_pairs(tmp_path, 3), [entry(1), entry(2)])
    source = open_pairs(tmp_path)
    assert source.warnings == ["metadata.json: has 2 entries for 3 pairs; the last 1 will fail"]
    assert source.read(1).window.x == 2
    assert "metadata.json has no entry number 2 (counted from 0); add it" in refusal(tmp_path, 2)


def test_metadata_list_too_long_is_an_error(tmp_path: Path) -> None:
    write_metadata(write_pairs(tmp_path, 2), [entry()] * 3)
    with pytest.raises(InputError, match="has 3 entries for 2 pairs"):
        open_pairs(tmp_path)


def test_metadata_without_the_stem(tmp_path: Path) -> None:
    write_metadata(write_pairs(tmp_path, 2), {"sample_pairs": {"001": entry(2)}})
    assert 'metadata.json has no entry "000" in sample_pairs' in refusal(tmp_path, 0)
    assert open_pairs(tmp_path).read(1).window.x == 2


def test_an_entry_that_is_no_object(tmp_path: Path) -> None:
    write_metadata(write_pairs(tmp_path, 2), [[1], entry()])
    assert "is not an object" in refusal(tmp_path, 0)
    assert open_pairs(tmp_path).metadata(0) is None


def test_a_warning_about_resolution_appears_when_the_pair_is_read(tmp_path: Path) -> None:
    coarse = entry()
    coarse["cell"]["resized_mpp_x"] = 0.25
    write_metadata(write_pairs(tmp_path, 1), [coarse])
    source = open_pairs(tmp_path)
    source.read(0)
    assert len(source.warnings) == 1
    assert "pair 000: the cell patch has 0.25 µm per pixel" in source.warnings[0]


# --- kinds of images -------------------------------------------------------------------------------------


def single(folder: Path, save: Any, name: str = "000.png") -> Path:
    """One good pair whose cell image is written by `save(path)`."""
    write_pairs(folder, 1)
    (folder / CELL / "000.png").unlink()
    save(folder / CELL / name)
    return folder


def read_cell(folder: Path) -> Pixels:
    return open_pairs(folder).read(0).cell


GRAY = patch(5)[..., 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    # How the stored pixels must be turned for viewing, from the EXIF standard.
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    single(tmp_path, lambda path: Image.fromarray(patch(0)).save(path, exif=exif), f"000{suffix}")
    assert np.array_equal(read_cell(tmp_path), upright(patch(0)))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".mha"])
def test_gray_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    def save(path: Path) -> None:
        if suffix == ".mha":
            sitk.WriteImage(sitk.GetImageFromArray(GRAY), str(path))
        else:
            Image.fromarray(GRAY).save(path)

    single(tmp_path, save, f"000{suffix}")
    assert np.array_equal(read_cell(tmp_path), np.repeat(GRAY[..., None], 3, 2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_palette_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    indexed = Image.fromarray(patch(0)).quantize(200)
    single(tmp_path, indexed.save, f"000{suffix}")
    assert np.array_equal(read_cell(tmp_path), np.asarray(indexed.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".mha"])
@pytest.mark.parametrize("alpha", [255, 254])
def test_only_an_opaque_alpha_channel_is_dropped(tmp_path: Path, suffix: str, alpha: int) -> None:
    pixels = np.dstack([patch(0), np.full((1024, 1024), 255, np.uint8)])
    pixels[77, 7, 3] = alpha

    def save(path: Path) -> None:
        if suffix == ".mha":
            sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(path))
        else:
            Image.fromarray(pixels).save(path)

    single(tmp_path, save, f"000{suffix}")
    if alpha == 255:
        assert np.array_equal(read_cell(tmp_path), patch(0))
    else:
        assert "transparent" in refusal(tmp_path)


def test_palette_with_transparency_is_refused(tmp_path: Path) -> None:
    indexed = Image.fromarray(patch(0)).quantize(16)
    single(tmp_path, lambda path: indexed.save(path, transparency=3))
    assert "transparent" in refusal(tmp_path)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    cmyk = Image.fromarray(patch(0)).convert("CMYK")
    single(tmp_path, lambda path: cmyk.save(path), f"000{suffix}")
    # JPEG loses a little; the naive conversion there and back is exact.
    assert np.abs(read_cell(tmp_path).astype(int) - patch(0)).mean() < (5 if suffix == ".jpg" else 1e-9)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def rgb16_png(pixels: Any) -> bytes:
    """A 16-bit RGB PNG, which Pillow cannot write."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".mha"])
def test_16_bits_keep_their_higher_half(tmp_path: Path, channels: int, suffix: str) -> None:
    small = patch(0) if channels == 3 else GRAY
    pixels = small.astype(np.uint16) * 257

    def save(path: Path) -> None:
        if suffix == ".mha":
            sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=channels == 3), str(path))
        elif suffix == ".tif":
            tifffile.imwrite(path, pixels, photometric="rgb" if channels == 3 else "minisblack")
        elif channels == 3:
            path.write_bytes(rgb16_png(pixels))
        else:
            Image.fromarray(pixels).save(path)

    single(tmp_path, save, f"000{suffix}")
    expected = small if channels == 3 else np.repeat(small[..., None], 3, 2)
    assert np.array_equal(read_cell(tmp_path), expected)


def test_12_bits_in_16_are_refused(tmp_path: Path) -> None:
    single(tmp_path, Image.fromarray(GRAY.astype(np.uint16) * 16).save)
    assert "below 4096" in refusal(tmp_path)


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    single(tmp_path, Image.fromarray(GRAY.astype(np.float32)).save, "000.tif")
    assert "no plain meaning" in refusal(tmp_path)


# --- bad files -------------------------------------------------------------------------------------------


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(patch(0)).save(buffer, "JPEG")
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes do not hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(99)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("000.jpg", jpeg()[:20_000], "000.jpg: cannot be decoded"),
        ("000.jpg", b"", "000.jpg: is empty (0 bytes); copy it again"),
        ("000.tif", b"", "000.tif: is empty (0 bytes)"),
        ("000.mha", b"", "000.mha: is empty (0 bytes)"),
        (
            "000.jpg",
            b"just text\n",
            "000.jpg: is not a JPEG, PNG, TIFF or BMP image, or is damaged; replace it",
        ),
        ("000.tif", b"just text\n", "000.tif: is not a readable TIFF image"),
        ("000.mha", b"just text\n", "000.mha: has no readable MetaImage header"),
        ("000.png", png_of_size(60_000, 60_000), "000.png: is far larger than 1024 × 1024 pixels"),
        ("000.png", png_of_size(5000, 5000), "000.png: is 5000 × 5000 pixels; a patch must be 1024 × 1024"),
        ("000.png", png_of_size(1024, 1024), "000.png: cannot be decoded"),
        ("000.jpg", png_of_size(512, 1024), "000.jpg: is 512 × 1024 pixels"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_bad_file(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    single(tmp_path, lambda path: path.write_bytes(content), name)
    # The good TIFF or PNG tissue image keeps this from being read as a stack.
    assert f"{CELL}/{message}" in refusal(tmp_path)


def test_a_stack_where_single_patches_are_expected(tmp_path: Path) -> None:
    tall = np.concatenate([patch(0), patch(1)])
    single(tmp_path, Image.fromarray(tall).save)
    assert "is 1024 × 2048 pixels; a patch must be 1024 × 1024" in refusal(tmp_path)


def test_an_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(patch(index)) for index in range(2)]
    single(tmp_path, lambda path: frames[0].save(path, save_all=True, append_images=frames[1:]))
    assert "is an animation" in refusal(tmp_path)


def test_a_png_named_jpg_is_read(tmp_path: Path) -> None:
    single(tmp_path, lambda path: Image.fromarray(patch(0)).save(path, "PNG"), "000.jpg")
    assert np.array_equal(read_cell(tmp_path), patch(0))


@pytest.mark.parametrize("suffix", [".mha", ".png"])
def test_a_name_that_simpleitk_cannot_take_does_not_end_the_process(tmp_path: Path, suffix: str) -> None:
    """It aborts on such a name; formats that others read keep such names."""
    folder = write_pairs(tmp_path, 2)
    odd = os.fsdecode(b"002\xff")
    for kind in ("cell", "tissue"):
        patches = folder / f"images/{kind}_patches"
        pixels = patch(5) if suffix == ".mha" else patch(5).astype(np.uint16) * 257
        sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(patches / f"x{suffix}"))
        (patches / f"x{suffix}").rename(patches / f"{odd}{suffix}")
        shutil.copy(patches / "000.png", patches / os.fsdecode(b"003\xff.png"))
    write_metadata(folder, [entry(index) for index in range(4)])
    source = open_pairs(folder)
    with pytest.raises(PairError, match="is not UTF-8, and files of this kind cannot be read so; rename it"):
        source.read(2)
    assert np.array_equal(source.read(3).cell, source.read(0).cell)


def test_an_image_far_too_large_says_nothing_but_its_line(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = write_pairs(tmp_path, 1)
    Image.new("1", (11000, 9000)).save(folder / "images/cell_patches/000.png")
    with pytest.raises(PairError, match="is 11000 × 9000 pixels; a patch must be 1024 × 1024"):
        open_pairs(folder).read(0)
    assert [str(warning.message) for warning in recwarn] == []


def test_a_link_to_nowhere(tmp_path: Path) -> None:
    single(tmp_path, lambda path: path.symlink_to(tmp_path / "gone.png"))
    assert "000.png: cannot be read (No such file or directory)" in refusal(tmp_path)


# --- OCELOT releases -------------------------------------------------------------------------------------


def write_release(folder: Path, subsets: tuple[str, ...]) -> Path:
    pairs = {}
    for number, subset in enumerate(subsets):
        for kind, offset in (("cell", 0), ("tissue", 100)):
            path = folder / "images" / subset / kind / f"00{number}.jpg"
            path.parent.mkdir(parents=True)
            Image.fromarray(patch(number + offset)).save(path)
        pairs[f"00{number}"] = entry(10 * number)
    write_metadata(folder, {"general_info": {}, "sample_pairs": pairs})
    return folder


def test_release_with_one_subset(tmp_path: Path) -> None:
    source = open_pairs(write_release(tmp_path, ("train",)))
    assert source.names == ["000"]
    assert source.read(0).window.x == 0


def test_release_with_several_subsets_needs_a_choice(tmp_path: Path) -> None:
    write_release(tmp_path, ("train", "val"))
    with pytest.raises(UsageError, match="train, val; choose one with --subset"):
        open_pairs(tmp_path)
    source = open_pairs(tmp_path, "val")
    assert source.names == ["001"]
    assert source.read(0).window.x == 10
    with pytest.raises(UsageError, match=r"--subset test: .* holds only train, val"):
        open_pairs(tmp_path, "test")


def test_subset_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no OCELOT release"):
        open_pairs(write_pairs(tmp_path, 1), "train")


def test_six_real_pairs_in_their_own_layout(shared: Path, tmp_path: Path) -> None:
    release = shared / "ocelot"
    names = sorted(path.stem for path in (release / "images/train/cell").iterdir())[:300:50]
    for kind in ("cell", "tissue"):
        folder = tmp_path / "images" / "train" / kind
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{name}.jpg").symlink_to(release / "images/train" / kind / f"{name}.jpg")
    shutil.copy(release / "metadata.json", tmp_path)
    metadata = json.loads((tmp_path / "metadata.json").read_text())["sample_pairs"]
    source = open_pairs(tmp_path)
    assert source.names == names
    for index, name in enumerate(names):
        pair = source.read(index)
        assert np.array_equal(pair.cell, np.asarray(Image.open(tmp_path / f"images/train/cell/{name}.jpg")))
        assert source.metadata(index) == metadata[name]
    assert len(source.warnings) == 1
    assert "lists pairs of 'train' without images (002, " in source.warnings[0]
