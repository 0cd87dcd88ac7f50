"""One file a pair for other programs: GeoJSON (QuPath, GIS), CSV (spreadsheets), pictures, a tissue map."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from softctm.datasets.ocelot import tissue_labels_of
from softctm.errors import ModelError
from softctm.pair import CellTissuePair
from softctm.points import CellClass, CellPoints
from softctm.storage.files import prepare_folder, remove_where_possible, write_bytes_atomically
from softctm.writers.marks import mark_cells
from softctm.writers.overview import overview
from softctm.writers.slide_points import CLASS_NAMES

if TYPE_CHECKING:
    from softctm.inference.detector import Prediction


def geojson(pair: CellTissuePair, prediction: Prediction) -> bytes:
    """Points at the centers of cell patch pixels; in QuPath detections with classes."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [int(x) + 0.5, int(y) + 0.5]},
            "properties": {
                "objectType": "detection",
                "classification": {"name": CLASS_NAMES[kind], "color": list(kind.color)},
                "measurements": {"Probability": float(str(score))},
            },
        }
        for x, y, kind, score in _rows(prediction.points)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}).encode() + b"\n"


def table(pair: CellTissuePair, prediction: Prediction) -> bytes:
    """A row a cell: x, y, class (the challenge's abbreviation), probability."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("x", "y", "class", "probability"))
    writer.writerows((x, y, kind.short, str(score)) for x, y, kind, score in _rows(prediction.points))
    return text.getvalue().encode()


def overlay(pair: CellTissuePair, prediction: Prediction) -> bytes:
    """A PNG of the cell patch with its cells: tumor cells blue circles, background cells yellow squares."""
    return _png(mark_cells(pair.cell, prediction.points))


def overview_png(pair: CellTissuePair, prediction: Prediction) -> bytes:
    """A PNG of both patches side by side; see `softctm.writers.overview`."""
    return _png(overview(pair, prediction))


def tissue(pair: CellTissuePair, prediction: Prediction) -> bytes:
    """A PNG of the tissue patch's likeliest classes with the values of OCELOT's annotation."""
    if prediction.tissue_probability is None:
        raise ModelError("the model gives no tissue map; leave tissue out of --also")
    return _png(Image.fromarray(tissue_labels_of(prediction.tissue_probability)))


FORMATS: dict[str, tuple[str, Callable[[CellTissuePair, Prediction], bytes]]] = {
    "geojson": (".geojson", geojson),
    "csv": (".csv", table),
    "overlay": (".png", overlay),
    "overview": (".png", overview_png),
    "tissue": (".png", tissue),
}
"""Name → suffix and writer."""

FROM_MAPS = frozenset({"overview", "tissue"})
"""The formats that show probability maps, which detectors give only when asked; overviews can do without."""


def write_for_viewers(folder: Path, name: str, pair: CellTissuePair, prediction: Prediction) -> None:
    """Write `folder/<format>/<pair>.<suffix>`, whole or not at all.

    Parameters
    ----------
    folder : Path
        The job's output folder.
    name : str
        One of `FORMATS`.
    pair : CellTissuePair
    prediction : Prediction
        With maps, for those in `FROM_MAPS`.

    Raises
    ------
    ModelError
        If it is the tissue, and the model gives no map of it.
    OutputError
        If it cannot be written.
    """
    suffix, encode = FORMATS[name]
    prepare_folder(folder / name)
    write_bytes_atomically(folder / name / f"{pair.name}{suffix}", encode(pair, prediction))


def forget_for_viewers(folder: Path, names: Iterable[str]) -> None:
    """Remove what an earlier run wrote of pairs, in whatever format.

    Beside this run's it would say otherwise.

    Parameters
    ----------
    folder : Path
        The job's output folder.
    names : iterable of str
        Of pairs.
    """
    files = [
        folder / form / f"{name}{suffix}"
        for name, (form, (suffix, _)) in itertools.product(names, FORMATS.items())
    ]
    # A record that was edited may name anything.
    remove_where_possible(file for file in files if file.parent.parent == folder)


def _png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def _rows(cells: CellPoints) -> list[tuple[int, int, CellClass, object]]:
    """Cells one by one."""
    columns = zip(cells.x, cells.y, cells.label, cells.score, strict=True)
    return [(int(x), int(y), CellClass(label), score) for x, y, label, score in columns]
