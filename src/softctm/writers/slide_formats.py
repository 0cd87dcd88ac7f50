"""The files that a slide's cells are written to, by name; what libraries the formats of tables need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from softctm.extras import require
from softctm.writers.slide_geojson import geojson_writer
from softctm.writers.slide_points import Add
from softctm.writers.slide_tables import csv_writer, h5ad_writer, parquet_writer

SlideWriter = Callable[[Path], AbstractContextManager[Add]]

ALWAYS = ("geojson", "csv")
"""Written for every slide."""

FURTHER = ("geojson.gz", "parquet", "h5ad")
"""Written where `--also` names them."""

FORMATS: dict[str, tuple[str, SlideWriter]] = {
    "geojson": ("cells.geojson", geojson_writer),
    "csv": ("cells.csv", csv_writer),
    "geojson.gz": ("cells.geojson.gz", geojson_writer),
    "parquet": ("cells.parquet", parquet_writer),
    "h5ad": ("cells.h5ad", h5ad_writer),
}
"""Name → file name and writer."""

_LIBRARIES = {"parquet": ("pyarrow",), "h5ad": ("anndata", "h5py", "pandas")}
"""By a format's last part."""


def require_libraries(formats: Iterable[str]) -> None:
    """Make sure, before a long computation, that formats can be written.

    Raises
    ------
    MissingPackageError
        If a library is not installed.
    """
    for name in formats:
        require(*_LIBRARIES.get(name.rpartition(".")[2], ()))
