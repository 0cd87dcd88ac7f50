"""Bits, planes, photometry and compression as the header says: taken truly or refused by name.

Expected pixels come from the array that was stored, files from tifffile, or byte by byte from the format's
specification, never from Pillow's reading of the same file.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from inputs import Pixels, entry, patch, stack_paths, write_metadata
from numpy.typing import NDArray
from PIL import Image

from softctm.errors import InputError
from softctm.readers import open_pairs
from softctm.readers.images import open_rows, read_patch
from softctm.readers.single_images import read_single_image

RGB = patch(0)
GRAY = patch(1)[..., 0]
DEEP = RGB.astype(np.uint16) * 257
GRAY_AS_RGB = np.repeat(GRAY[..., None], 3, 2)


def noisy16(channels: int) -> NDArray[np.uint16]:
    """Values whose lower bytes differ from pixel to pixel, so that predictors have something to do."""
    return np.random.default_rng(3).integers(0, 1 << 16, (1024, 1024, channels), np.uint16)


def read(path: Path) -> Pixels:
    """As a pair's patch and as an image by itself, which must be the same."""
    pixels = read_patch(path, path.name)
    assert np.array_equal(read_single_image(path, path.name), pixels)
    return pixels


def refusal(path: Path, *, by_both: bool = False) -> str:
    messages = []
    for reader in (read_patch, read_single_image) if by_both else (read_patch,):
        with pytest.raises(InputError) as caught:
            reader(path, path.name)
        messages.append(str(caught.value))
    assert messages[0].startswith(f"{path.name}: ")
    assert "\n" not in messages[0]
    assert len(set(messages)) == 1
    return messages[0]


# --- TIFF ------------------------------------------------------------------------------------------------


LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 100},
    "big-endian": {"rowsperstrip": 100, "byteorder": ">"},
    "deflate": {"rowsperstrip": 64, "compression": "zlib"},
    "deflate, big-endian": {"rowsperstrip": 64, "compression": "zlib", "byteorder": ">"},
    "differences": {"rowsperstrip": 64, "compression": "zlib", "predictor": True},
    "tiles": {"tile": (256, 240)},
    "tiles of differences": {"tile": (256, 240), "compression": "zlib", "predictor": True, "byteorder": ">"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("form", ["rgb", "planar rgb", "black is zero", "white is zero"])
def test_every_way_to_store_whole_bytes(tmp_path: Path, form: str, dtype: Any, layout: str) -> None:
    path, values = tmp_path / "a.tif", noisy16(3 if "rgb" in form else 1)
    if dtype == np.uint8:
        values = values.view(np.uint8)[..., ::2]
    match form:
        case "rgb":
            tifffile.imwrite(path, values, photometric="rgb", **LAYOUTS[layout])
        case "planar rgb":
            planes = np.ascontiguousarray(values.transpose(2, 0, 1))
            tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", **LAYOUTS[layout])
        case "black is zero":
            tifffile.imwrite(path, values[..., 0], photometric="minisblack", **LAYOUTS[layout])
        case "white is zero":
            stored = np.iinfo(dtype).max - values[..., 0]
            tifffile.imwrite(path, stored, photometric="miniswhite", **LAYOUTS[layout])
    expected = values if dtype == np.uint8 else values >> 8
    assert np.array_equal(read(path), np.broadcast_to(expected, (1024, 1024, 3)))


def test_a_stack_of_deep_patches_is_read_patch_by_patch(tmp_path: Path) -> None:
    paths = stack_paths(tmp_path)
    stack = np.concatenate([noisy16(3), DEEP])
    tifffile.imwrite(
        paths["cell"], stack, photometric="rgb", rowsperstrip=300, compression="zlib", predictor=True
    )
    planes = np.ascontiguousarray(stack.transpose(2, 0, 1))
    tifffile.imwrite(paths["tissue"], planes, photometric="rgb", planarconfig="separate")
    write_metadata(tmp_path, [entry()] * 2)
    source = open_pairs(tmp_path)
    for index in (1, 0):
        pair, expected = source.read(index), (stack[1024 * index : 1024 * (index + 1)] >> 8).astype(np.uint8)
        assert np.array_equal(pair.cell, expected)
        assert np.array_equal(pair.tissue, expected)


@pytest.mark.parametrize("scale", [1, 16], ids=["8 bits", "12 bits"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_few_bits_in_many_are_refused(
    tmp_path: Path, scale: int, planar: bool, compression: str | None
) -> None:
    path, values = tmp_path / "a.tif", RGB.astype(np.uint16) * scale
    if planar:
        planes = np.ascontiguousarray(values.transpose(2, 0, 1))
        tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", compression=compression)
    else:
        tifffile.imwrite(path, values, photometric="rgb", compression=compression)
    assert "16-bit pixels whose values all lie below 4096" in refusal(path, by_both=True)


@pytest.mark.parametrize("kind", ["rgb", "minisblack"])
def test_few_bits_beside_an_opaque_channel_are_refused(tmp_path: Path, kind: str) -> None:
    color = (RGB if kind == "rgb" else RGB[..., :1]).astype(np.uint16) * 16
    alpha = np.full((1024, 1024, 1), 65535, np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.dstack([color, alpha]), photometric=kind, extrasamples=["unassalpha"])
    assert "16-bit pixels whose values all lie below 4096" in refusal(path, by_both=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["rgb", "minisblack"])
@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("opaque", [True, False])
def test_a_further_channel(tmp_path: Path, dtype: Any, kind: str, extra: str, opaque: bool) -> None:
    path, full = tmp_path / "a.tif", np.iinfo(dtype).max
    color = (DEEP if kind == "rgb" else DEEP[..., :1]).astype(dtype) if dtype == np.uint16 else RGB
    color = color if kind == "rgb" else color[..., :1]
    alpha = np.full((1024, 1024, 1), full, dtype)
    alpha[5, 9] = full if opaque else full // 2
    tifffile.imwrite(
        path, np.dstack([color, alpha]), photometric=kind, extrasamples=[extra], planarconfig="contig"
    )
    if opaque or extra == "unspecified":
        expected = RGB if kind == "rgb" else np.broadcast_to(RGB[..., :1], RGB.shape)
        assert np.array_equal(read(path), expected)
    else:
        assert "partly transparent" in refusal(path, by_both=True)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_gray_of_few_bits(tmp_path: Path, bits: int, white_is_zero: bool) -> None:
    levels = (1 << bits) - 1
    stored = (GRAY & levels).astype(np.uint8)
    packed = np.packbits(np.unpackbits(stored[..., None], axis=2)[..., -bits:].reshape(1024, -1), axis=1)
    path = tmp_path / "a.tif"
    photometric = "miniswhite" if white_is_zero else "minisblack"
    tifffile.imwrite(path, packed, photometric=photometric)
    retag(path, ImageWidth=1024, BitsPerSample=bits)
    expected = (levels - stored if white_is_zero else stored) * (255 // levels)
    assert np.array_equal(read(path)[..., 0], expected)


def retag(path: Path, **tags: Any) -> None:
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for name, value in tags.items():
            tiff.pages.first.tags[name].overwrite(value)


def write_rgb(path: Path, **tags: Any) -> None:
    tifffile.imwrite(path, RGB, photometric="rgb", rowsperstrip=64, compression=tags.pop("compression", None))
    retag(path, **tags)


def write_array(pixels: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, **options)


REFUSED: dict[str, tuple[Callable[[Path], None], Sequence[str]]] = {
    "JPEG 2000": (lambda path: write_rgb(path, Compression=34712), ("JPEG2000", "34712", "LZW, Deflate")),
    "Aperio's JPEG 2000": (lambda path: write_rgb(path, Compression=33005), ("APERIO_JP2000", "is not read")),
    "WebP": (lambda path: write_rgb(path, Compression=50001), ("WEBP", "is not read")),
    "old JPEG": (lambda path: write_rgb(path, Compression=6), ("OJPEG", "is not read")),
    "unknown compression": (lambda path: write_rgb(path, Compression=12345), ("compressed as number 12345",)),
    "float": (
        write_array(RGB.astype(np.float32), photometric="rgb"),
        ("floating-point numbers", "8-bit RGB"),
    ),
    "half": (write_array(RGB.astype(np.float16), photometric="rgb"), ("floating-point numbers",)),
    "signed": (write_array(RGB.astype(np.int16), photometric="rgb"), ("signed integers",)),
    "signed 8": (write_array((RGB // 2).astype(np.int8), photometric="rgb"), ("signed integers",)),
    "32 bits": (write_array(RGB.astype(np.uint32), photometric="rgb"), ("32 bits",)),
    "complex": (write_array(GRAY.astype(np.complex64)), ("complex numbers",)),
    "CMYK of 16 bits": (
        write_array(np.dstack([DEEP, DEEP[..., :1]]), photometric="separated"),
        ("16 bits a sample (CMYK)",),
    ),
    "5 channels": (
        write_array(np.zeros((1024, 1024, 5), np.uint8), photometric="rgb", planarconfig="contig"),
        ("5 channels",),
    ),
    "CIELab": (write_array(RGB, photometric="cielab"), ("CIELAB", "no gray, RGB, palette or CMYK")),
    "raw of a camera": (write_array(DEEP[..., 0], photometric=32803), ("CFA",)),
    "YCbCr without JPEG": (lambda path: write_rgb(path, PhotometricInterpretation=6), ("YCbCr",)),
    "unequal bits": (
        lambda path: write_rgb(path, BitsPerSample=(8, 8, 16)),
        ("8 and 16 bits, not the same",),
    ),
    "a dark palette": (
        write_array(
            GRAY, photometric="palette", colormap=np.arange(768, dtype=np.uint16).reshape(3, 256) % 256
        ),
        ("palette", "lower 8 of its 16 bits"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_named(tmp_path: Path, case: str) -> None:
    write, parts = REFUSED[case]
    write(tmp_path / "a.tif")
    message = refusal(tmp_path / "a.tif", by_both=True)
    for part in parts:
        assert part in message


def test_a_palette_keeps_its_colors(tmp_path: Path) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", GRAY, photometric="palette", colormap=palette)
    expected = (palette.T[GRAY] >> 8).astype(np.uint8)
    assert np.array_equal(read(tmp_path / "a.tif"), expected)


def test_a_sparse_tiff_is_called_so(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", tile=(256, 256))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages.first
        for name in ("TileOffsets", "TileByteCounts"):
            values = list(page.tags[name].value)
            values[3:5] = 0, 0
            page.tags[name].overwrite(values)
    assert "leaves out 2 of its 16 strips or tiles (a sparse TIFF)" in refusal(path, by_both=True)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_images(tmp_path: Path, orientation: int) -> None:
    """Pillow turns the 8-bit image, which it reads truly; the 16-bit one must come out the same."""
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RGB).save(tmp_path / "b.png", exif=exif)
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    write_png(tmp_path / "a.png", DEEP, exif=exif.tobytes())
    upright = read_patch(tmp_path / "b.png", "b.png")
    for name in ("a.tif", "a.png"):
        assert np.array_equal(read(tmp_path / name), upright)


# --- PNG -------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, pixels: NDArray[np.uint16], exif: bytes = b"", extra: bytes = b"") -> None:
    """A 16-bit PNG from its specification; each row is filtered by its left neighbor (filter 1)."""
    channels = pixels.shape[2]
    rows = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(len(pixels), -1)
    left = np.pad(rows, ((0, 0), (2 * channels, 0)))[:, : rows.shape[1]]
    filtered = np.pad(rows - left, ((0, 0), (1, 0)), constant_values=1)
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, color, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    if exif:
        data += chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    path.write_bytes(data + chunk(b"IDAT", zlib.compress(filtered.tobytes(), 1)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_png(tmp_path: Path, channels: int) -> None:
    values = noisy16(channels)
    if channels == 4:
        values[..., -1] = 65535
    write_png(tmp_path / "a.png", values)
    colors = values[..., : min(channels, 3)] >> 8
    assert np.array_equal(read_patch(tmp_path / "a.png", "a.png"), np.broadcast_to(colors, (1024, 1024, 3)))


def test_deep_gray_with_alpha_is_named(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", noisy16(2))
    assert "gray of 16 bits with an alpha channel is not read" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [1, 16], ids=["8 bits", "12 bits"])
def test_few_bits_in_a_deep_png_are_refused(tmp_path: Path, channels: int, scale: int) -> None:
    values = np.repeat(GRAY[..., None], channels, 2).astype(np.uint16) * scale
    if channels == 4:
        values[..., -1] = 65535
    write_png(tmp_path / "a.png", values)
    assert "16-bit pixels whose values all lie below 4096" in refusal(tmp_path / "a.png")


def test_a_transparent_deep_png_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", DEEP, extra=chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3)))
    assert "transparent" in refusal(tmp_path / "a.png")
    values = np.dstack([DEEP, np.full((1024, 1024), 65535, np.uint16)])
    values[3, 3, 3] = 60000
    write_png(tmp_path / "a.png", values)
    assert "transparent" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_png_of_few_bits(tmp_path: Path, bits: int) -> None:
    levels = (1 << bits) - 1
    stored = (GRAY & levels).astype(np.uint8)
    packed = np.packbits(np.unpackbits(stored[..., None], axis=2)[..., -bits:].reshape(1024, -1), axis=1)
    header = struct.pack(">IIBBBBB", 1024, 1024, bits, 0, 0, 0, 0)
    rows = np.pad(packed, ((0, 0), (1, 0))).tobytes()
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    assert np.array_equal(read_patch(tmp_path / "a.png", "a.png")[..., 0], stored * (255 // levels))


# --- JPEG ------------------------------------------------------------------------------------------------


def jpeg(pixels: Pixels, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode if mode == "CMYK" else None).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def test_a_jpeg_of_12_bits_is_named(tmp_path: Path) -> None:
    data = bytearray(jpeg(RGB))
    frame = data.index(b"\xff\xc0\x00\x11\x08")
    data[frame + 4] = 12
    (tmp_path / "a.jpg").write_bytes(data)
    assert "12 bits a channel" in refusal(tmp_path / "a.jpg")
    # Any marker may have fill bytes before it.
    (tmp_path / "a.jpg").write_bytes(data[:frame] + b"\xff\xff\xff" + data[frame:])
    assert "12 bits a channel" in refusal(tmp_path / "a.jpg")


@pytest.mark.parametrize("ycck", [False, True])
def test_inks_in_a_jpeg(tmp_path: Path, ycck: bool) -> None:
    """Adobe's files hold inverted inks; transform 2 says that the first three are YCbCr of inverted inks."""
    stored = np.empty((1024, 1024, 4), np.uint8)
    stored[:] = 200, 100, 150, 220  # as stored, that is, 255 − ink
    data = bytearray(jpeg(255 - stored, "CMYK"))
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] == 0
    inverted = stored[0, 0].astype(float)
    if ycck:
        data[adobe + 11] = 2
        y, cb, cr = inverted[:3]
        # JFIF's conversion gives RGB; YCCK's R, G, B are 255 − C, 255 − M, 255 − Y of what CMYK would store.
        rgb = [
            y + 1.402 * (cr - 128),
            y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128),
            y + 1.772 * (cb - 128),
        ]
        inverted[:3] = 255 - np.clip(rgb, 0, 255)
    (tmp_path / "a.jpg").write_bytes(data)
    expected = inverted[:3] * inverted[3] / 255
    assert np.abs(read_patch(tmp_path / "a.jpg", "a.jpg") - expected).max() < 5


def test_of_a_camera_s_several_pictures_the_first_is_read(tmp_path: Path) -> None:
    first = Image.fromarray(RGB)
    first.save(
        tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.fromarray(patch(5))], quality=95
    )
    assert np.abs(read_patch(tmp_path / "a.jpg", "a.jpg").astype(int) - RGB).mean() < 5


# --- other suffixes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpe", ".jfif", ".bmp"])
def test_further_suffixes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RGB).save(path, "BMP" if suffix == ".bmp" else "JPEG")
    limit = 0 if suffix == ".bmp" else 5
    assert np.abs(read_patch(path, "a").astype(int) - RGB).mean() <= limit


def test_a_tiff_stack_says_what_is_wrong_when_it_is_opened(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.concatenate([DEEP, DEEP]).astype(np.float32), photometric="rgb")
    with pytest.raises(InputError, match=r"a\.tif: its pixels are floating-point numbers"):
        open_rows(tmp_path / "a.tif", "a.tif")
