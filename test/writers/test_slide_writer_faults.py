"""What holds for every file of a slide's cells, however its writing ends."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from softctm.errors import OutputError
from softctm.writers.slide_geojson import geojson_writer
from softctm.writers.slide_points import SlideCells
from softctm.writers.slide_tables import csv_writer, h5ad_writer, parquet_writer

WRITERS = {
    "cells.csv": csv_writer,
    "cells.geojson": geojson_writer,
    "cells.geojson.gz": geojson_writer,
    "cells.parquet": parquet_writer,
    "cells.h5ad": h5ad_writer,
}


def cells(number: int) -> SlideCells:
    rng = np.random.default_rng(0)
    wide, narrow = rng.random((4, number)) * 1e4, rng.random((3, number)).astype(np.float32)
    return SlideCells(*wide, rng.integers(1, 3, number).astype(np.uint8), *narrow)


@pytest.fixture
def small_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
def test_what_goes_wrong_elsewhere_is_not_told_as_this_files_trouble(name: str, tmp_path: Path) -> None:
    trouble = OSError(errno.EIO, "Input/output error", "slide.svs")

    def write() -> None:
        with WRITERS[name](tmp_path / name) as add:
            add(cells(3))
            raise trouble

    with pytest.raises(OSError, match=r"slide\.svs") as caught:
        write()
    assert caught.value is trouble
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("small_files")
def test_a_file_that_does_not_fit_is_named_and_does_not_appear(name: str, tmp_path: Path) -> None:
    def write() -> None:
        with WRITERS[name](tmp_path / name) as add:
            for _ in range(10):
                add(cells(10_000))

    with pytest.raises(OutputError, match=rf"{name} cannot be written \(File too large\); make room"):
        write()
    assert list(tmp_path.iterdir()) == []
