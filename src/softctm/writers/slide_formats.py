"""The files that a slide's cells are written to, by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

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
