"""Regions of interest, as QuPath writes them."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from softctm.errors import SlideError
from softctm.slides.region import Region

SQUARE = [[100, 100], [500, 100], [500, 400], [100, 400], [100, 100]]
HOLE = [[200, 200], [300, 200], [300, 300], [200, 300], [200, 200]]
ISLAND = [[700.5, 50.25], [800, 60], [750, 180], [700.5, 50.25]]


def feature(kind, coordinates):
    return {
        "type": "Feature",
        "id": "5d0b8f7c-2f0e-4c79-9d1b-8f3e1c6c1f0a",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}},
    }


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def region(tmp_path, document):
    path = tmp_path / "region.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return Region.read(path)


def drawn(rings, holes):
    """The same drawn by Pillow at four times the size."""
    image = Image.new("L", (4000, 2000))
    draw = ImageDraw.Draw(image)
    for fill, which in ((255, rings), (0, holes)):
        for ring in which:
            draw.polygon([(4 * x, 4 * y) for x, y in ring], fill)
    return np.asarray(image) > 0


FORMS = {
    "collection": collection(feature("Polygon", [SQUARE, HOLE]), feature("Polygon", [ISLAND])),
    "multipolygon": collection(feature("MultiPolygon", [[SQUARE, HOLE], [ISLAND]])),
    "list": [feature("Polygon", [SQUARE, HOLE]), feature("Polygon", [ISLAND])],
    "feature": feature("MultiPolygon", [[SQUARE, HOLE], [ISLAND]]),
    "geometry": {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [ISLAND]]},
    "with points and lines": collection(
        feature("Point", [5, 5]),
        feature("LineString", [[0, 0], [900, 900]]),
        feature("MultiPolygon", [[SQUARE, HOLE], [ISLAND]]),
    ),
    "overlapping": collection(
        feature("MultiPolygon", [[SQUARE, HOLE], [ISLAND]]),
        feature("Polygon", [[[400, 100], [500, 100], [500, 400], [400, 400], [400, 100]]]),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_geojson_gives_the_same_region(form, tmp_path):
    found = region(tmp_path, FORMS[form])
    expected = drawn([SQUARE, ISLAND], [HOLE])
    random = np.random.default_rng(0)
    x, y = random.uniform(0, 1000, 4000), random.uniform(0, 500, 4000)
    inside = found.contains(x, y)
    differs = inside != expected[(4 * y).astype(int), (4 * x).astype(int)]
    assert differs.mean() < 0.003  # those on Pillow's borders
    assert not found.contains(np.array([250.0]), np.array([250.0]))[0]
    if form != "overlapping":  # there the outline has further corners
        assert found.digest == region(tmp_path, FORMS["collection"]).digest


def test_heights_of_points_are_passed_over(tmp_path):
    ring = [[0, 0], [40, 0], [40, 30], [0, 0]]
    (tmp_path / "flat").mkdir()
    flat = region(tmp_path / "flat", feature("Polygon", [ring]))
    high = region(tmp_path, feature("Polygon", [[[*point, 7.5] for point in ring]]))
    assert high.digest == flat.digest
    shares = [one.share_of_pixels(8, 6, (5.0, 5.0)) for one in (high, flat)]
    np.testing.assert_array_equal(*shares)
    assert all(ring.shape[1] == 2 for ring in high.rings())


def test_shares_of_pixels_are_areas(tmp_path):
    found = region(tmp_path, FORMS["collection"])
    share = found.share_of_pixels(16, 8, (64.0, 64.0))
    pixels = drawn([SQUARE, ISLAND], [HOLE])
    (ax, ay), (bx, by), (cx, cy) = ISLAND[:3]
    island = abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) / 2
    padded = np.zeros((8 * 256, 16 * 256))
    padded[: pixels.shape[0], :] = np.pad(pixels, ((0, 0), (0, 96)))
    np.testing.assert_allclose(share, padded.reshape(8, 256, 16, 256).mean(axis=(1, 3)), atol=0.02)
    assert share.sum() * 64 * 64 == pytest.approx(400 * 300 - 100 * 100 + island, rel=1e-3)


def test_a_polygon_that_crosses_itself_is_taken_for_what_it_encloses(tmp_path):
    bow = [[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]
    found = region(tmp_path, collection(feature("Polygon", [bow])))
    assert found.contains(np.array([10.0, 90.0, 50.0]), np.array([50.0, 50.0, 10.0])).tolist() == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("no json", "is not JSON"),
        ("{}", "is not GeoJSON"),
        ('{"type": "FeatureCollection"}', "is not GeoJSON"),
        ({"type": "Polygon", "coordinates": [[["a", 1]]]}, "is not GeoJSON"),
        ({"type": "Blob", "coordinates": []}, "is not GeoJSON"),
        (collection(), "no polygon with an area"),
        (collection(feature("Point", [1, 2])), "no polygon with an area"),
        (collection(feature("Polygon", [[[0, 0], [9, 9], [0, 0], [0, 0]]])), "no polygon with an area"),
        (collection({"type": "Feature", "geometry": None}), "no polygon with an area"),
    ],
)
def test_what_is_no_region_is_named(document, words, tmp_path):
    with pytest.raises(SlideError, match=f"^region .*region.geojson: .*{words}") as caught:
        region(tmp_path, document)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_region_beside_the_slide_are_named(tmp_path):
    with pytest.raises(SlideError, match=r"none.geojson: cannot be read"):
        Region.read(tmp_path / "none.geojson")
    found = region(tmp_path, FORMS["collection"])
    found.check_on_slide(120, 120)
    with pytest.raises(SlideError, match=r"lies outside of the slide, which has 90 × 90 pixels"):
        found.check_on_slide(90, 90)
