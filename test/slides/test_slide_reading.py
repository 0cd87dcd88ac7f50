"""Windows of a slide against resampling the whole slide by other programs; formats; resolutions."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from slide_files import picture, reduced, write_ome, write_tiff

from softctm.errors import SlideError
from softctm.slides import Slide, open_slide, tiff_pyramid
from softctm.slides.pyramid import Level

HEIGHT, WIDTH = 620, 750
PICTURE = picture(HEIGHT, WIDTH)


class InMemory:
    """A pyramid of arrays, white outside."""

    format, origin = "arrays", (0, 0)

    def __init__(self, images, mpp=(0.25, 0.25)):
        self.images, self.mpp = images, mpp
        first = images[0].shape[1]
        self.levels = tuple(
            Level(image.shape[1], image.shape[0], float(round(first / image.shape[1])), True)
            for image in images
        )
        self.asked = []

    def read(self, level, x, y, width, height):
        self.asked.append(level)
        image = np.pad(self.images[level], ((1000, 1000), (1000, 1000), (0, 0)), constant_values=255)
        return image[1000 + y : 1000 + y + height, 1000 + x : 1000 + x + width]

    def close(self):
        pass


def area_resampled(image, ratio):
    """Mean over `ratio` = (p, q), p / q pixels a side: every pixel repeated q times, then blocks of p."""
    p, q = ratio
    big = image.repeat(q, axis=0).repeat(q, axis=1).astype(np.float64)
    height, width = (side // p for side in big.shape[:2])
    return big[: height * p, : width * p].reshape(height, p, width, p, 3).mean(axis=(1, 3))


def bicubic_resampled(image, scale):
    """PyTorch's bicubic interpolation, half-pixel centers, white around."""
    import torch

    padded = np.pad(image, ((20, 20), (20, 20), (0, 0)), constant_values=255)
    tensor = torch.from_numpy(padded.transpose(2, 0, 1)[None].astype(np.float64))
    enlarged = torch.nn.functional.interpolate(tensor, scale_factor=scale, mode="bicubic")[0].numpy()
    border = round(20 * scale)
    return enlarged.transpose(1, 2, 0)[border:-border, border:-border].clip(0, 255)


WHOLE_AT_02 = bicubic_resampled(PICTURE, 1.25)
WHOLE_AT_08 = area_resampled(PICTURE, (16, 5))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize(("mpp", "whole"), [(0.2, WHOLE_AT_02), (0.8, WHOLE_AT_08)])
def test_a_window_is_that_of_the_whole_slide_resampled(data, mpp, whole):
    slide = slide_of([PICTURE])
    height, width = whole.shape[:2]
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    window = slide.read(x, y, w, h, mpp)
    assert np.abs(window - whole[y : y + h, x : x + w]).max() <= 0.5 + 1e-2


def slide_of(images, **options):
    from pathlib import Path

    mpp = options.pop("given", None)
    return Slide(Path("slide.svs"), InMemory(images, **options), mpp)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), mpp=st.sampled_from([0.2, 0.25, 0.33, 0.8, 1.7]))
def test_windows_agree_to_the_bit_where_they_overlap_and_are_white_outside(data, mpp):
    slide = slide_of([PICTURE], mpp=(0.25, 0.251))
    width, height = slide.size_at(mpp)
    whole = slide.read(-30, -30, width + 60, height + 60, mpp)
    x, y = data.draw(st.integers(-30, width)), data.draw(st.integers(-30, height))
    w, h = data.draw(st.integers(1, width + 30 - x)), data.draw(st.integers(1, height + 30 - y))
    np.testing.assert_array_equal(
        slide.read(x, y, w, h, mpp), whole[y + 30 : y + 30 + h, x + 30 : x + 30 + w]
    )
    assert (whole[:25] == 255).all()
    assert (whole[:, -25:] == 255).all()


def test_windows_larger_than_a_piece_are_put_together_without_seams():
    big = picture(2600, 2300)
    slide = slide_of([big], mpp=(0.2, 0.2))
    np.testing.assert_array_equal(slide.read(0, 0, 2300, 2600, 0.2), big)
    expected = area_resampled(big, (5, 1))
    assert np.abs(slide.read(0, 0, 460, 520, 1.0) - expected).max() <= 0.51


def test_the_nearest_finer_level_is_read():
    levels = [PICTURE, reduced(PICTURE, 2), reduced(PICTURE, 4)]
    slide = slide_of(levels, mpp=(0.2, 0.2))
    for mpp, level in ((0.1, 0), (0.2, 0), (0.39, 0), (0.4, 1), (0.79, 1), (0.8, 2), (16, 2)):
        slide._pyramid.asked.clear()
        slide.read(0, 0, 4, 4, mpp)
        assert set(slide._pyramid.asked) == {level}
    np.testing.assert_array_equal(slide.read(0, 0, 187, 155, 0.8), levels[2])


def test_a_pixel_far_from_the_corner_is_where_the_resolution_says():
    image = np.full((1, 200_000, 3), 255, np.uint8)
    image[:, 190_000] = 0
    slide = slide_of([image], given=0.200019)
    darkness = 255.0 - slide.read(189_900, 0, 300, 1, 0.2)[0, :, 0]
    center = 189_900.5 + (darkness * np.arange(300)).sum() / darkness.sum()
    assert center == pytest.approx(190_000.5 * 0.200019 / 0.2, abs=0.2)


def test_axes_of_different_resolution_are_resampled_by_themselves():
    slide = slide_of([PICTURE], mpp=(0.2, 0.4))
    assert slide.size_at(0.4) == (WIDTH // 2, HEIGHT)
    expected = PICTURE.reshape(HEIGHT, WIDTH // 2, 2, 3).mean(axis=2)
    assert np.abs(slide.read(0, 0, WIDTH // 2, HEIGHT, 0.4) - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("stored", "given", "words"),
    [
        (None, None, "says nothing about its resolution; give µm per pixel with --mpp"),
        ((0.0, 0.0), None, r"resolution \(from the file\) is 0, not µm per pixel from 0.05 to 1"),
        ((0.25, 0.25), 0.0, r"\(as given\) is 0, not"),
        ((0.25, 0.25), -1.0, "is -1, not"),
        ((0.25, 0.25), float("nan"), "is nan, not"),
        ((0.25, 0.25), 1.2, "correct it with --mpp, or scan"),
        ((1.01, 1.01), None, "to 1; correct it"),
        ((0.25, 2.5e-4), None, "is 0.00025, not"),
    ],
)
def test_a_slide_without_usable_resolution_is_refused(stored, given, words):
    with pytest.raises(SlideError, match=f"^slide.svs: .*{words}"):
        slide_of([PICTURE], mpp=stored, given=given)


def test_a_coarse_slide_is_warned_of():
    assert slide_of([PICTURE], mpp=(0.3, 0.3)).warnings_at(0.2) == ()
    (warning,) = slide_of([PICTURE], mpp=(0.5, 0.5)).warnings_at(0.2)
    assert "slide.svs: 0.5 µm per pixel is coarser than the 0.2" in warning
    assert slide_of([PICTURE], mpp=(0.5, 0.5)).warnings_at(0.5) == ()
    assert slide_of([PICTURE], mpp=None, given=0.25).mpp == (0.25, 0.25)


LEVELS = [PICTURE, reduced(PICTURE, 2)]


@pytest.mark.parametrize("corner", [(128, 64), (127, 64), (131, 50)])
def test_a_slide_is_what_was_scanned_of_its_plane(corner, tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "plane.tif", LEVELS)
    x, y, width, height = *corner, 301, 203
    described = {"x": x, "y": y, "width": width, "height": height}
    bounds = {f"openslide.bounds-{name}": str(value) for name, value in described.items()}
    original = openslide.OpenSlide.properties.fget
    monkeypatch.setattr(openslide.OpenSlide, "properties", property(lambda own: {**original(own), **bounds}))
    scanned = PICTURE[y : y + height, x : x + width]
    with open_slide(path) as slide:
        assert (slide.width, slide.height, slide.origin) == (width, height, corner)
        window = slide.read(-5, -7, width + 10, height + 14, 0.25)
        np.testing.assert_array_equal(window[7:-7, 5:-5], scanned)
        window[7:-7, 5:-5] = 255
        assert (window == 255).all()
        # Whatever level it comes from: the second one's pixels lie on those of level 0 for even corners.
        half = slide.read(0, 0, 150, 101, 0.5)
        assert np.abs(half - area_resampled(scanned, (2, 1))[:101, :150]).max() <= 0.51
        assert slide.read(0, 0, 150, 101, 0.5, approximate=True).shape == (101, 150, 3)


def test_bounds_that_cannot_be_are_passed_over(tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "plane.tif", LEVELS)
    bounds = {f"openslide.bounds-{name}": "5000" for name in ("x", "y", "width", "height")}
    original = openslide.OpenSlide.properties.fget
    monkeypatch.setattr(openslide.OpenSlide, "properties", property(lambda own: {**original(own), **bounds}))
    with open_slide(path) as slide:
        assert (slide.width, slide.height, slide.origin) == (WIDTH, HEIGHT, (0, 0))


FORMATS = {
    "tiled.tif": lambda path: write_tiff(path, LEVELS),
    "big.TIFF": lambda path: write_tiff(path, LEVELS, tile=(128, 64)),
    "strips.tif": lambda path: write_tiff(path, LEVELS, tile=None, rowsperstrip=37),
    "planes.tif": lambda path: write_tiff(
        path,
        [level.transpose(2, 0, 1) for level in LEVELS],
        tile=None,
        rowsperstrip=50,
        planarconfig="separate",
    ),
    "lzw.tif": lambda path: write_tiff(path, LEVELS, tile=None, rowsperstrip=16, compression="lzw"),
    "sub.ome.tif": lambda path: write_ome(path, LEVELS),
    "strips.OME.TIF": lambda path: write_ome(path, LEVELS, tile=None, rowsperstrip=40),
    "flat.PNG": lambda path: (Image.fromarray(PICTURE).save(path), path)[1],
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_pixels(name, tmp_path):
    path = FORMATS[name](tmp_path / name)
    stored = None if name == "flat.PNG" else (0.25, 0.25)
    with open_slide(path, None if stored else 0.25) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        assert slide.mpp == pytest.approx((0.25, 0.25), abs=1e-6)
        assert slide.level_count == (1 if name == "flat.PNG" else 2)
        window = slide.read(-10, 100, WIDTH + 20, 200, slide.mpp[0])
        np.testing.assert_array_equal(window[:, 10:-10], PICTURE[100:300])
        assert (window[:, :10] == 255).all()
        if slide.level_count == 2:
            np.testing.assert_array_equal(slide.read(30, 40, 99, 77, 0.5), LEVELS[1][40:117, 30:129])


def test_transparent_pixels_are_white(tmp_path):
    image = np.dstack((PICTURE, np.full((HEIGHT, WIDTH), 255, np.uint8)))
    image[:100, :50, 3] = 0
    Image.fromarray(image).save(tmp_path / "alpha.png")
    with open_slide(tmp_path / "alpha.png", 0.25) as slide:
        window = slide.read(0, 0, WIDTH, HEIGHT, 0.25)
    assert (window[:100, :50] == 255).all()
    np.testing.assert_array_equal(window[100:], PICTURE[100:])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_picture_is_turned_upright_as_its_camera_says(mode, tmp_path):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    lying = Image.fromarray(np.rot90(PICTURE).copy()).convert(mode)
    lying.save(path, exif=exif)
    with open_slide(path, 0.25) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        np.testing.assert_array_equal(slide.read(0, 0, WIDTH, HEIGHT, 0.25), PICTURE)


def test_a_picture_without_plain_meaning_is_refused_by_name(tmp_path):
    path = tmp_path / "dark.png"
    Image.fromarray(np.full((50, 60), 700, np.uint16)).save(path)
    with pytest.raises(SlideError, match=r"dark\.png: 16-bit pixels whose values all lie below 4096"):
        open_slide(path, 0.25)


def test_jpeg_is_a_slide_where_its_resolution_is_given(tmp_path):
    path = tmp_path / "photo.JPG"
    Image.fromarray(PICTURE).save(path, quality=95)
    with pytest.raises(SlideError, match=r"photo.JPG: says nothing about its resolution; .* --mpp"):
        open_slide(path)
    with open_slide(path, 0.25) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, WIDTH, HEIGHT, 0.25), np.asarray(Image.open(path)))


@pytest.mark.parametrize("name", ["tiled", "strips"])
def test_a_printers_resolution_is_none(name, tmp_path):
    options = {} if name == "tiled" else {"tile": None}
    path = tmp_path / f"{name}.tif"
    tifffile.imwrite(
        path, PICTURE, photometric="rgb", resolution=(72, 72), resolutionunit="INCH", metadata=None,
        **({"tile": (256, 256)} | options),
    )  # fmt: skip
    with pytest.raises(SlideError, match="says nothing about its resolution"):
        open_slide(path)


def _write_bytes(content):
    return lambda path: path.write_bytes(content)


def _write_array(array, **options):
    return lambda path: tifffile.imwrite(path, array, metadata=None, **options)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "folder without DICOM"),
        (_write_bytes(b""), "not a slide"),
        (_write_bytes(b"word" * 99), "not a slide"),
        (_write_bytes(b"II*\0" + b"\xff" * 99), "cannot be opened"),
        (_write_array(np.zeros((90, 90), np.uint16)), "1 channels of 16 bits, not 8-bit RGB"),
        (_write_array(np.zeros((90, 90), np.uint8)), "1 channels of 8 bits, not 8-bit RGB"),
        (_write_array(np.zeros((90, 90, 3), np.float32), photometric="rgb"), "not 8-bit RGB"),
    ],
)
def test_what_is_not_a_slide_is_named_with_the_reason(write, words, tmp_path):
    path = tmp_path / "some.tif"
    write(path)
    with pytest.raises(SlideError, match=words) as caught:
        open_slide(path, 0.25)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["tiled", "strips"])
def test_a_damaged_tile_is_named_where_it_is_read(kind, tmp_path):
    options = {} if kind == "tiled" else {"tile": None, "rowsperstrip": 64}
    path = write_tiff(tmp_path / "damaged.tif", [PICTURE], **options)
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[4], file.pages[0].databytecounts[4]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\xaa" * count
    path.write_bytes(content)
    with open_slide(path) as slide:
        slide.read(0, 0, 10, 10, 0.25)
        with pytest.raises(SlideError, match=r"damaged\.tif: .*damaged"):
            slide.read(0, 0, WIDTH, HEIGHT, 0.25)


def test_a_tile_that_a_sparse_file_leaves_out_is_white(tmp_path):
    path = write_ome(tmp_path / "sparse.ome.tif", [PICTURE])
    with tifffile.TiffFile(path, mode="r+b") as file:
        page = file.pages[0]
        for name in ("TileByteCounts", "TileOffsets"):
            page.tags[name].overwrite([0, *page.tags[name].value[1:]])
    with open_slide(path) as slide:
        window = slide.read(0, 0, WIDTH, HEIGHT, 0.25)
    assert (window[:256, :256] == 255).all()
    np.testing.assert_array_equal(window[256:], PICTURE[256:])


def test_readers_side_by_side_leave_the_tile_cache_in_order(tmp_path, monkeypatch):
    path = write_ome(tmp_path / "slide.ome.tif", [picture(1024, 1024)])
    monkeypatch.setattr(tiff_pyramid, "_CACHE_BYTES", 6 * 256 * 256 * 3)
    together = threading.Barrier(4)

    def read(column):
        together.wait()
        for row in range(8):
            pyramid.read(0, 100 * column, 100 * row, 300, 300)

    pyramid = tiff_pyramid.TiffPyramid(path)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            list(pool.map(read, [0, 0, 1, 1]))
    pyramid.read(0, 0, 0, 512, 768)
    assert len(pyramid._cache) == 6
    pyramid.close()


def test_openslides_test_slide_is_read_as_pillow_reads_it(shared):
    path = shared / "slides" / "cmu-1-small-region.svs"
    with open_slide(path) as slide, tifffile.TiffFile(path) as file:
        assert (slide.width, slide.height, slide.mpp) == (2220, 2967, (0.499, 0.499))
        assert slide.format == "aperio"
        data = file.pages[0].asarray()
        window = slide.read(100, 200, 700, 500, 0.499)
    assert np.abs(window.astype(int) - data[200:700, 100:800]).mean() < 1


def test_a_slide_whose_end_is_missing_is_named_so(shared, tmp_path):
    content = (shared / "slides" / "cmu-1-small-region.svs").read_bytes()
    path = tmp_path / "part.svs"
    for size, words in (
        (len(content) - 1000, "its end is missing; copy it again"),
        (500_000, "it was cut off"),
    ):
        path.write_bytes(content[:size])
        for mpp in (None, 0.5):
            with pytest.raises(SlideError, match=rf"part\.svs: .*{words}"):
                open_slide(path, mpp)


def test_a_level_that_openslide_would_interpolate_is_for_overviews_only(shared):
    with open_slide(shared / "slides" / "tcga-cr-7395-01a-01-ts1.svs", 0.25) as slide:
        assert [level.exact for level in slide._pyramid.levels] == [True, False]
        assert slide._level_for(16, approximate=True) == 1
        assert slide._level_for(0.8, approximate=False) == 0
    with pytest.raises(SlideError, match=r"tcga.*--mpp"):
        open_slide(shared / "slides" / "tcga-cr-7395-01a-01-ts1.svs")
