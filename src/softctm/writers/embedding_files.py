"""Embeddings of nuclei as a table that other programs read: Parquet, or AnnData for single-cell tools.

A row a nucleus: its id, center, type, and vector. Centers are pixels with pixel centers at + 0.5, as in the
other files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.extras import imported
from softctm.postprocessing.measured_nuclei import MeasuredNuclei
from softctm.writers.anndata_file import write_anndata
from softctm.writers.nuclei_writer import NucleiWriter

_ROWS_A_GROUP = 16384
"""Of a Parquet file: 12 MB of vectors of 384 numbers, which is what is held in memory."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """Nuclei as they are written."""

    id: NDArray[np.int32]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    type: NDArray[np.int64]
    vectors: NDArray[np.float16]

    @classmethod
    def concatenated(cls, parts: Sequence[_Rows]) -> _Rows:
        return cls(
            *(np.concatenate(column) for column in zip(*(vars(p).values() for p in parts), strict=True))
        )


class _EmbeddingWriter(NucleiWriter):
    """What both formats share; the nuclei must have embeddings."""

    def _begin(self) -> None:
        self._waiting: list[_Rows] = []

    def _add(self, nuclei: MeasuredNuclei, origin: tuple[float, float], scale: tuple[float, float]) -> None:
        if nuclei.embeddings is None:
            raise ValueError("these nuclei have no embeddings")
        table = nuclei.table
        x, y = (table.x + 0.5) * scale[0] + origin[0], (table.y + 0.5) * scale[1] + origin[1]
        self._waiting.append(_Rows(table.id, x, y, table.type.astype(np.int64), nuclei.embeddings))

    def _taken(self) -> _Rows:
        """All that waits to be written."""
        nothing = np.zeros(0)
        empty = _Rows(
            nothing.astype(np.int32), nothing, nothing, nothing.astype(np.int64), np.zeros((0, 0), "f2")
        )
        rows = _Rows.concatenated(self._waiting) if self._waiting else empty
        self._waiting = []
        return rows

    @property
    def _names(self) -> list[str]:
        return [kind.name for kind in self._types]


class ParquetWriter(_EmbeddingWriter):
    """Columns id, x, y, type, embedding; written in groups of rows, so that memory does not grow."""

    _writer: Any = None

    def _add(self, nuclei: MeasuredNuclei, origin: tuple[float, float], scale: tuple[float, float]) -> None:
        super()._add(nuclei, origin, scale)
        if sum(len(rows.id) for rows in self._waiting) >= _ROWS_A_GROUP:
            self._flush()

    def _finish(self) -> None:
        if self._waiting or self._writer is None:
            self._flush()
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        pyarrow, rows = imported("pyarrow"), self._taken()
        length = max(rows.vectors.shape[1], 1)  # without nuclei no length is known, and 0 is none
        kinds = pyarrow.DictionaryArray.from_arrays(
            pyarrow.array(rows.type.astype(np.int16)), pyarrow.array(self._names)
        )
        vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.vectors.ravel()), length)
        columns = {"id": rows.id, "x": rows.x, "y": rows.y, "type": kinds, "embedding": vectors}
        table = pyarrow.table(columns)
        if self._writer is None:
            self._writer = imported("pyarrow.parquet").ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)


class AnnDataWriter(_EmbeddingWriter):
    """X are the vectors, obs id and type, obsm["spatial"] x and y; held in memory until it is written."""

    def _finish(self) -> None:
        anndata, pandas, rows = imported("anndata"), imported("pandas"), self._taken()
        kinds = pandas.Categorical.from_codes(rows.type, self._names)
        table = anndata.AnnData(
            X=rows.vectors,
            obs=pandas.DataFrame({"id": rows.id, "type": kinds}, index=rows.id.astype(str)),
            obsm={"spatial": np.column_stack((rows.x, rows.y))},
        )
        write_anndata(self._file, table)

    def _close(self) -> None:
        self._waiting = []


EMBEDDING_WRITERS: dict[str, tuple[str, type[NucleiWriter]]] = {
    "embeddings.parquet": ("embeddings.parquet", ParquetWriter),
    "embeddings.h5ad": ("embeddings.h5ad", AnnDataWriter),
}
"""Name → file name and writer."""


def need_embeddings(formats: Iterable[str]) -> bool:
    """Whether any format of a slide's or an image's nuclei holds embeddings."""
    return not EMBEDDING_WRITERS.keys().isdisjoint(formats)
