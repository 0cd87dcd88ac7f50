"""One way to write an AnnData, into a file that is already open."""

from __future__ import annotations

from typing import IO, Any

from softctm.extras import imported


def write_anndata(file: IO[bytes], data: Any) -> None:
    """Write an `anndata.AnnData` into an open file; MissingPackageError without its libraries."""
    with imported("h5py").File(file, "w") as container:
        imported("anndata").io.write_elem(container, "/", data)
