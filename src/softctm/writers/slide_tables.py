"""The cells of a slide as a table: CSV, Parquet, and AnnData for scanpy and squidpy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from softctm.extras import imported
from softctm.points import CellClass
from softctm.storage.files import AtomicFile, output_errors
from softctm.writers.anndata_file import write_anndata
from softctm.writers.slide_points import Add, SlideCells

COLUMNS = (
    "x",
    "y",
    "x_um",
    "y_um",
    "class",
    "probability",
    "other_probability",
    "tissue_probability",
)
_ROW = "{:.2f},{:.2f},{:.1f},{:.1f},{},{:.4f},{:.4f},{:.4f}\n"
_SHORT = {int(kind): kind.short for kind in CellClass}
_ROWS_A_GROUP = 65536


@contextmanager
def csv_writer(path: Path) -> Iterator[Add]:
    """Write one line per cell: `COLUMNS`; the class as the challenge abbreviates it, BC or TC."""
    with AtomicFile(path) as file:

        def write(text: str) -> None:
            with output_errors(path):
                file.write(text.encode())

        def add(cells: SlideCells) -> None:
            write("".join(_ROW.format(*row) for row in zip(*_lists(cells), strict=True)))

        write(",".join(COLUMNS) + "\n")
        yield add


@contextmanager
def parquet_writer(path: Path) -> Iterator[Add]:
    """Write the same columns as Parquet, unrounded; `class` is a dictionary column."""
    pyarrow, parquet = imported("pyarrow"), imported("pyarrow.parquet")
    number, single = pyarrow.float64(), pyarrow.float32()
    kinds = (*[number] * 4, pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), *[single] * 3)
    schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    waiting: list[SlideCells] = []

    def flush() -> None:
        columns = [np.concatenate(column) for column in zip(*map(_columns, waiting), strict=True)]
        codes = (columns[4] == CellClass.TUMOR).astype(np.int8)
        names = [CellClass.BACKGROUND.short, CellClass.TUMOR.short]
        arrays = [pyarrow.array(column) for column in columns]
        arrays[4] = pyarrow.DictionaryArray.from_arrays(pyarrow.array(codes), pyarrow.array(names))
        with output_errors(path):
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
        waiting.clear()

    def add(cells: SlideCells) -> None:
        waiting.append(cells)
        if sum(map(len, waiting)) >= _ROWS_A_GROUP:
            flush()

    with AtomicFile(path) as file, ExitStack() as stack:
        with output_errors(path):
            writer = stack.enter_context(parquet.ParquetWriter(file, schema))
        yield add
        if waiting:
            flush()
        with output_errors(path):
            stack.close()


@contextmanager
def h5ad_writer(path: Path) -> Iterator[Add]:
    """Write an AnnData, one row per cell: class and probabilities as `obs`, level-0 pixels as `spatial`.

    An AnnData is written as a whole: the cells are held in memory, some 50 bytes each.
    """
    anndata, pandas = imported("anndata"), imported("pandas")
    waiting: list[SlideCells] = []
    with AtomicFile(path) as file:
        yield waiting.append
        parts = [np.concatenate(column) for column in zip(*map(_columns, waiting), strict=True)]
        columns = dict(zip(COLUMNS, parts or [np.zeros(0)] * len(COLUMNS), strict=True))
        kinds = [CellClass.BACKGROUND.short, CellClass.TUMOR.short]
        codes = (columns["class"] == CellClass.TUMOR).astype(np.int8)
        obs = pandas.DataFrame(
            {
                "class": pandas.Categorical.from_codes(codes, kinds),
                **{name: columns[name] for name in COLUMNS if name.endswith("probability")},
            },
            index=np.arange(len(codes)).astype(str),
        )
        spatial = np.column_stack((columns["x"], columns["y"]))
        micrometers = np.column_stack((columns["x_um"], columns["y_um"]))
        table = anndata.AnnData(obs=obs, obsm={"spatial": spatial, "spatial_um": micrometers})
        with output_errors(path):
            write_anndata(file, table)


def _columns(cells: SlideCells) -> tuple[Any, ...]:
    return (
        cells.x,
        cells.y,
        cells.x_um,
        cells.y_um,
        cells.label,
        cells.probability,
        cells.other_probability,
        cells.tissue_probability,
    )


def _lists(cells: SlideCells) -> list[list[Any]]:
    lists = [column.tolist() for column in _columns(cells)]
    lists[4] = [_SHORT[label] for label in lists[4]]
    return lists
