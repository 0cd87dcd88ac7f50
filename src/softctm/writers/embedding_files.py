"""Embeddings of nuclei as a table that other programs read: Parquet, or AnnData for single-cell tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softctm.errors import UsageError
from softctm.extras import require
from softctm.nuclei_table import NucleiTable, NucleusType
from softctm.storage.files import AtomicFile, output_errors

EMBEDDING_FORMATS = {"parquet": "pyarrow", "h5ad": "anndata"}
"""File name ending → the library that writes it."""


def check_embedding_format(name: str) -> None:
    """Make sure before the computation that a format can be written.

    Raises
    ------
    UsageError
        If it is unknown.
    MissingPackageError
        If its library is not installed.
    """
    if name not in EMBEDDING_FORMATS:
        raise UsageError(f"embeddings are written as {' or '.join(EMBEDDING_FORMATS)}, not {name}")
    require(EMBEDDING_FORMATS[name])


def write_embeddings(
    path: Path,
    table: NucleiTable,
    embeddings: NDArray[np.float16],
    types: Sequence[NucleusType],
    *,
    origin: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
) -> None:
    """Write a row a nucleus: id, x, y, type, and its vector.

    Parameters
    ----------
    path : Path
        `….parquet` (columns id, x, y, type, embedding) or `….h5ad` (X, obs, obsm["spatial"]).
    table : NucleiTable
    embeddings : (N, D) float16
        In the table's order.
    types : sequence of NucleusType
        By number.
    origin, scale : (float, float)
        As for the other writers of nuclei: x and y have pixel centers at + 0.5.

    Raises
    ------
    UsageError
        If the ending is another.
    MissingPackageError
        If its library is not installed.
    OutputError
        If it cannot be written.
    """
    form = path.suffix[1:]
    check_embedding_format(form)
    x = (table.x + 0.5) * scale[0] + origin[0]
    y = (table.y + 0.5) * scale[1] + origin[1]
    names = np.array([kind.name for kind in types])[table.type]
    if form == "parquet":
        _write_parquet(path, table.id, x, y, names, embeddings)
    else:
        _write_anndata(path, table.id, x, y, names, embeddings)


def _write_parquet(
    path: Path,
    ids: NDArray[np.int32],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    names: NDArray[np.str_],
    embeddings: NDArray[np.float16],
) -> None:
    import pyarrow
    from pyarrow import parquet

    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(embeddings.ravel()), embeddings.shape[1])
    columns = {"id": ids, "x": x, "y": y, "type": pyarrow.array(names.tolist(), pyarrow.string())}
    with AtomicFile(path) as file, output_errors(path):
        parquet.write_table(pyarrow.table({**columns, "embedding": vectors}), file)


def _write_anndata(
    path: Path,
    ids: NDArray[np.int32],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    names: NDArray[np.str_],
    embeddings: NDArray[np.float16],
) -> None:
    import anndata
    import pandas

    rows = pandas.DataFrame({"id": ids, "type": pandas.Categorical(names)}, index=ids.astype(str))
    data = anndata.AnnData(X=embeddings, obs=rows, obsm={"spatial": np.column_stack((x, y))})
    temporary = path.with_name(f".{path.stem}.tmp.h5ad")
    with output_errors(path):
        try:
            data.write_h5ad(temporary, compression="gzip")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
