"""Synthetic inputs in every layout, for tests of readers and of the job."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def patch(seed: int, size: tuple[int, int] = (1024, 1024)) -> Pixels:
    """A patch that compresses well, has no symmetry and differs by seed: blocks of random colors."""
    rows, columns = size
    colors = np.random.default_rng(seed).integers(0, 256, (-(-rows // 64), -(-columns // 64), 3), np.uint8)
    return np.repeat(np.repeat(colors, 64, 0), 64, 1)[:rows, :columns].copy()


@functools.cache
def encoded(seed: int, suffix: str) -> bytes:
    """A patch as the content of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(patch(seed)).save(buffer, Image.registered_extensions()[suffix], compress_level=1)
    return buffer.getvalue()


def entry(x: int = 3, y: int = 5) -> dict[str, Any]:
    """Metadata whose cell patch starts at (x, y) of the tissue patch, in tissue patch pixels."""
    return {
        "cell": {"x_start": 100 + x, "y_start": 200 + y, "x_end": 356 + x, "y_end": 456 + y},
        "tissue": {"x_start": 100, "y_start": 200, "x_end": 1124, "y_end": 1224},
    }


def write_pairs(folder: Path, count: int = 3, suffix: str = ".png") -> Path:
    """Layout 1: one image a pair, stems 000, 001, …, metadata as a list."""
    for index in range(count):
        for kind, offset in (("cell", 0), ("tissue", 100)):
            path = folder / "images" / f"{kind}_patches" / f"{index:03}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(index + offset, suffix.lower()))
    write_metadata(folder, [entry(index, 5) for index in range(count)])
    return folder


def stack_paths(folder: Path, suffix: str = ".tif") -> dict[str, Path]:
    """Where layout 2 has its two files; makes their folders."""
    paths = {kind: folder / "images" / f"{kind}_patches" / f"{kind}s{suffix}" for kind in ("cell", "tissue")}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    return paths


PEAK_MEMORY = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024"
"""A Python expression: peak resident memory of its process, MB. `getrusage` would count the parent's too."""


def write_metadata(folder: Path, document: Any) -> None:
    """Write `metadata.json`."""
    (folder / "metadata.json").write_text(json.dumps(document))
