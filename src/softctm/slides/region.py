"""A region of interest: polygons in level-0 pixels, from GeoJSON as QuPath writes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.errors import SlideError, one_line
from softctm.extras import missing


class Region:
    """The union of the polygons of a file; their holes are not part of it, their borders are.

    Parameters
    ----------
    shape : shapely geometry
        Polygons in level-0 pixels.
    path : Path
        How messages call it.

    Attributes
    ----------
    path : Path
    digest : str
        SHA-256 of the shape: what makes a result stale.
    bounds : (float, float, float, float)
        x0, y0, x1, y1 in level-0 pixels.
    """

    def __init__(self, shape: Any, path: Path) -> None:
        import shapely

        self.path, self._shape = path, shape
        shapely.prepare(shape)
        self.digest = hashlib.sha256(shapely.to_wkb(shapely.normalize(shape))).hexdigest()
        self.bounds: tuple[float, float, float, float] = shape.bounds

    @classmethod
    def read(cls, path: Path) -> Region:
        """Read a FeatureCollection, a list of features, one feature or one geometry.

        Points and lines, which QuPath may export beside the annotations, are passed over.

        Raises
        ------
        SlideError
            If the file cannot be read, is no GeoJSON, or holds no polygon with an area.
        """
        shapely = _shapely()
        try:
            document = json.loads(path.read_bytes())
        except OSError as error:
            raise SlideError(
                f"region {path}: cannot be read ({error.strerror}); check --region and the list"
            ) from error
        except (ValueError, RecursionError) as error:
            raise SlideError(f"region {path}: is not JSON ({error}); export it as GeoJSON") from error
        try:
            shapes = [shapely.geometry.shape(geometry) for geometry in _geometries(document)]
            polygons = [
                part
                for valid in shapely.make_valid(shapes)
                for part in shapely.get_parts(shapely.get_parts(valid))
                if part.geom_type == "Polygon"
            ]
        except Exception as error:
            raise SlideError(
                f"region {path}: is not GeoJSON ({one_line(error)}); export it from QuPath as GeoJSON"
            ) from error
        union = shapely.force_2d(shapely.union_all(polygons))
        if union.is_empty or union.area == 0:
            raise SlideError(
                f"region {path}: holds no polygon with an area; draw one, or leave the region out"
            )
        return cls(union, path)

    def check_on_slide(self, width: int, height: int) -> None:
        """Make sure that the region touches a slide of that size, in level-0 pixels.

        Raises
        ------
        SlideError
            If it lies beside the slide.
        """
        import shapely

        if self._shape.intersection(shapely.box(0, 0, width, height)).area == 0:
            x0, y0, x1, y1 = (round(value) for value in self.bounds)
            raise SlideError(
                f"region {self.path}: ({x0}, {y0}) … ({x1}, {y1}) lies outside of the slide, which has "
                f"{width} × {height} pixels; give level-0 pixels"
            )

    def contains(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each point, in level-0 pixels, lies in the region or on its border."""
        import shapely

        inside: NDArray[np.bool_] = shapely.intersects_xy(self._shape, x, y)
        return inside

    def touches(self, x0: float, y0: float, x1: float, y1: float) -> bool:
        """Whether a part of the region lies in a rectangle of level-0 pixels."""
        import shapely

        return bool(self._shape.intersects(shapely.box(x0, y0, x1, y1)))

    def rings(self) -> Iterator[NDArray[np.float64]]:
        """The polygons' outlines and holes, each (N, 2) in level-0 pixels."""
        import shapely

        for polygon in shapely.get_parts(self._shape):
            yield np.asarray(polygon.exterior.coords)
            for hole in polygon.interiors:
                yield np.asarray(hole.coords)

    def share_of_pixels(self, width: int, height: int, scale: tuple[float, float]) -> NDArray[np.float32]:
        """How much of each pixel of a coarse grid the region covers, (height, width), 0 … 1.

        Parameters
        ----------
        width, height : int
            Of the grid, which begins at the slide's origin.
        scale : (float, float)
            Level-0 pixels a grid pixel, x and y.
        """
        import shapely

        share = np.zeros((height, width), np.float32)
        x0, y0, x1, y1 = self.bounds
        columns = np.arange(max(0, int(x0 / scale[0])), min(width, int(x1 / scale[0]) + 1))
        for row in range(max(0, int(y0 / scale[1])), min(height, int(y1 / scale[1]) + 1)):
            pixels = shapely.box(
                columns * scale[0], row * scale[1], (columns + 1) * scale[0], (row + 1) * scale[1]
            )
            part = shapely.contains_properly(self._shape, pixels).astype(np.float32)
            on_border = shapely.intersects(self._shape, pixels) & (part == 0)
            common = shapely.intersection(self._shape, pixels[on_border])
            part[on_border] = shapely.area(common) / (scale[0] * scale[1])
            share[row, columns] = part
        return share


def _geometries(document: Any) -> Iterator[Mapping[str, Any]]:
    """The geometries of whatever GeoJSON object this is."""
    if isinstance(document, list):
        for part in document:
            yield from _geometries(part)
        return
    if not isinstance(document, Mapping) or "type" not in document:
        raise ValueError("an object without a type")
    if document["type"] == "FeatureCollection":
        yield from _geometries(document["features"])
    elif document["type"] == "Feature":
        if document.get("geometry") is not None:
            yield document["geometry"]
    else:
        yield document


def _shapely() -> Any:
    try:
        import shapely
        import shapely.geometry
    except ImportError as error:
        raise missing("shapely") from error
    return shapely
