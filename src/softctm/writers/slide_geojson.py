"""`cells.geojson`: the cells of a slide as QuPath's detections, written as they come."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

from softctm.storage.files import AtomicFile, output_errors
from softctm.writers.slide_points import CLASS_NAMES, Add, SlideCells

_CLASSES = {
    int(kind): json.dumps({"name": name, "color": list(kind.color)}) for kind, name in CLASS_NAMES.items()
}
_FEATURE = (
    '{{"type": "Feature", "geometry": {{"type": "Point", "coordinates": [{:.2f}, {:.2f}]}}, "properties": '
    '{{"objectType": "detection", "classification": {}, "measurements": '
    '{{"Probability": {:.4f}, "Cancer area probability": {:.4f}}}}}}}'
)


@contextmanager
def geojson_writer(path: Path) -> Iterator[Add]:
    """Write a FeatureCollection of points in level-0 pixels, a line each; compressed if `path` ends in .gz.

    Objects are as QuPath writes them from 0.4 on: a class has name and color, measurements are an object.
    """
    with AtomicFile(path) as plain, ExitStack() as stack:
        file: IO[bytes] = plain
        if path.suffix == ".gz":
            file = cast(IO[bytes], stack.enter_context(gzip.GzipFile("", "wb", 6, plain, mtime=0)))
        with output_errors(path):
            file.write(b'{"type": "FeatureCollection", "features": [')
        separator = "\n"

        def add(cells: SlideCells) -> None:
            nonlocal separator
            rows = zip(
                cells.x.tolist(),
                cells.y.tolist(),
                (_CLASSES[label] for label in cells.label.tolist()),
                cells.probability.tolist(),
                cells.tissue_probability.tolist(),
                strict=True,
            )
            lines = [_FEATURE.format(*row) for row in rows]
            if lines:
                with output_errors(path):
                    file.write((separator + ",\n".join(lines)).encode())
                separator = ",\n"

        yield add
        with output_errors(path):
            file.write(b"\n]}\n")
            stack.close()
