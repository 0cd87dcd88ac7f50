"""Nuclei for other programs, batch after batch: GeoJSON (QuPath, GIS) and CSV (spreadsheets).

Each writer streams to a temporary file, so that a million nuclei need no more memory than a batch of them;
the file appears under its name when it is whole.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from softctm.nuclei_table import NucleusType
from softctm.postprocessing.measured_nuclei import MeasuredNuclei
from softctm.writers.embedding_files import EMBEDDING_WRITERS
from softctm.writers.nuclei_writer import NucleiWriter

_DECIMALS = 2
"""Of positions, pixels: an outline's corners lie at halves."""

_MEASUREMENTS = ("area_um2", "perimeter_um", "eccentricity", "hematoxylin_od")

CSV_COLUMNS = ("id", "x", "y", "type", "probability", *_MEASUREMENTS, "left", "top", "right", "bottom")


class _TextWriter(NucleiWriter):
    """A file of text, compressed if its name ends in .gz."""

    def _begin(self) -> None:
        if self._path.suffix == ".gz":  # without the time of writing in it
            self._file = cast(IO[bytes], gzip.GzipFile("", "wb", 6, self._file, mtime=0))
        self._write(self._head())

    def _add(self, nuclei: MeasuredNuclei, origin: tuple[float, float], scale: tuple[float, float]) -> None:
        self._write(self._encoded(nuclei, np.array(origin, float), np.array(scale, float)))

    def _finish(self) -> None:
        self._write(self._tail())
        self._close()

    def _close(self) -> None:
        if self._path.suffix == ".gz":
            self._file.close()

    def _write(self, text: str) -> None:
        self._file.write(text.encode())

    @abstractmethod
    def _head(self) -> str:
        """What the file begins with."""

    @abstractmethod
    def _encoded(
        self, nuclei: MeasuredNuclei, origin: NDArray[np.float64], scale: NDArray[np.float64]
    ) -> str:
        """A batch as text."""

    def _tail(self) -> str:
        """What it ends with."""
        return ""


class GeoJsonWriter(_TextWriter):
    """A feature collection of polygons, which QuPath reads as detections with classes and measurements.

    Coordinates are pixels, x first, with pixel centers at + 0.5; rings are closed and counterclockwise.
    """

    def __init__(self, path: Path, types: Sequence[NucleusType]) -> None:
        super().__init__(path, types)
        self._classes = [{"name": kind.name, "color": list(kind.color)} for kind in types]
        self._separator = "\n"

    def _head(self) -> str:
        return '{"type":"FeatureCollection","features":['

    def _encoded(
        self, nuclei: MeasuredNuclei, origin: NDArray[np.float64], scale: NDArray[np.float64]
    ) -> str:
        parts = []
        corners = np.round(nuclei.outlines.corners * scale + origin, _DECIMALS).tolist()
        start = nuclei.outlines.start.tolist()
        measured = [_plain(getattr(nuclei.features, name)) for name in _MEASUREMENTS]
        table = nuclei.table
        columns = zip(
            table.id.tolist(), table.type.tolist(), _plain(table.type_probability), *measured, strict=True
        )
        for i, (number, kind, probability, *values) in enumerate(columns):
            ring = corners[start[i] : start[i + 1]]
            feature: dict[str, Any] = {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
                "properties": {
                    "objectType": "detection",
                    "classification": self._classes[kind],
                    "measurements": {
                        "id": number,
                        "probability": probability,
                        **dict(zip(_MEASUREMENTS, values, strict=True)),
                    },
                },
            }
            parts.append(self._separator + json.dumps(feature, separators=(",", ":")))
            self._separator = ",\n"
        return "".join(parts)

    def _tail(self) -> str:
        return "\n]}\n"


class CsvWriter(_TextWriter):
    """A row a nucleus: id, center, type, its probability, measurements, bounding box.

    x and y are pixels with centers at + 0.5, as in the GeoJSON file; the box's sides are pixel sides.
    """

    def _head(self) -> str:
        return ",".join(CSV_COLUMNS) + "\n"

    def _encoded(
        self, nuclei: MeasuredNuclei, origin: NDArray[np.float64], scale: NDArray[np.float64]
    ) -> str:
        table, text = nuclei.table, io.StringIO()
        center = np.column_stack((table.x, table.y)) + 0.5
        top_left, bottom_right = table.box[:, [1, 0]], table.box[:, [3, 2]]
        placed = [np.round(part * scale + origin, _DECIMALS) for part in (center, top_left, bottom_right)]
        columns = (
            table.id.tolist(),
            *placed[0].T.tolist(),
            [self._types[kind].name for kind in table.type.tolist()],
            _plain(table.type_probability),
            *(_plain(getattr(nuclei.features, name)) for name in _MEASUREMENTS),
            *(column for part in placed[1:] for column in part.T.tolist()),
        )
        csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
        return text.getvalue()


NUCLEI_WRITERS: dict[str, tuple[str, type[NucleiWriter]]] = {
    "geojson": ("nuclei.geojson", GeoJsonWriter),
    "csv": ("nuclei.csv", CsvWriter),
}
"""Name → file name and writer."""

FURTHER_NUCLEI_WRITERS: dict[str, tuple[str, type[NucleiWriter]]] = {
    "geojson.gz": ("nuclei.geojson.gz", GeoJsonWriter),
    **EMBEDDING_WRITERS,
}
"""Those that are written where `--also` names them."""

ALL_NUCLEI_WRITERS = NUCLEI_WRITERS | FURTHER_NUCLEI_WRITERS


def _plain(values: NDArray[np.floating]) -> list[float]:
    """Python numbers with four decimals."""
    rounded: list[float] = np.round(values.astype(np.float64), 4).tolist()
    return rounded
