"""Synthetic cells, releases and a tiny network, for the tests of training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from softctm.datasets.ocelot import AnnotatedPair
from softctm.points import CellPoints
from softctm.training.feeding import Feed, MicroBatch

BC, TC = 1, 2
Batch = Callable[[int, int, int], tuple[Tensor, Tensor]]
STROMA, HEMATOXYLIN = (235, 190, 215), (80, 55, 140)


def cells(*rows: tuple[int, int, int]) -> CellPoints:
    """Cells from (x, y, class)."""
    table = np.array(rows, np.int32).reshape(-1, 3)
    return CellPoints(
        table[:, 0].copy(), table[:, 1].copy(), table[:, 2].astype(np.uint8), np.ones(len(table), np.float32)
    )


def discs(shape: tuple[int, int], points: CellPoints, radius: float) -> NDArray[np.int32]:
    """i + 1 within `radius` pixels of point i, 0 elsewhere; the discs must not meet."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for i, (x, y) in enumerate(zip(points.x, points.y, strict=True)):
        labels[np.hypot(columns - x, rows - y) <= radius] = i + 1
    return labels


def stained(nuclei: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """An image that is blue in the nuclei and pink elsewhere, (H, W, 3) uint8."""
    return np.where(nuclei[..., None], HEMATOXYLIN, STROMA).astype(np.uint8)


@dataclass(frozen=True)
class PairInMemory(AnnotatedPair):
    """A pair without files: its cells are given."""

    points: CellPoints = field(default_factory=CellPoints.empty)

    def cells(self) -> CellPoints:
        return self.points


def pair_in_memory(
    number: int, patient: str, organ: str = "kidney", bc: int = 0, tc: int = 0
) -> PairInMemory:
    """A pair of a patient with so many cells of both classes."""
    nowhere = Path("nowhere")
    points = cells(*[(i, i, BC) for i in range(bc)], *[(i, i + 1, TC) for i in range(tc)])
    return PairInMemory(f"{number:03d}", patient, organ, {}, nowhere, nowhere, nowhere, nowhere, points)


def write_release(
    folder: Path, cell_rows: Sequence[Sequence[tuple[int, int, int]]], patients: Sequence[str] | None = None
) -> Path:
    """An OCELOT release of flat patches with blue discs at the given cells.

    Pair k is of patient k unless `patients` says otherwise. Its window in the tissue patch begins at
    (400 + 4 k, 200). The tissue is cancer in the left half, background in the right, unknown in the last row.
    """
    patients = patients or [f"TCGA-00-{k:04d}" for k in range(len(cell_rows))]
    tissue = np.full((1024, 1024), 1, np.uint8)
    tissue[:, :512] = 2
    tissue[-1] = 255
    entries = {}
    for k, (rows, patient) in enumerate(zip(cell_rows, patients, strict=True)):
        name, points = f"{k + 1:03d}", cells(*rows)
        shown = stained(discs((1024, 1024), points, 12) > 0)
        files = {
            f"images/train/cell/{name}.jpg": shown,
            f"images/train/tissue/{name}.jpg": stained(tissue == 2),
            f"annotations/train/tissue/{name}.png": tissue,
        }
        for place, pixels in files.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / place, quality=95)
        csv = folder / f"annotations/train/cell/{name}.csv"
        csv.parent.mkdir(parents=True, exist_ok=True)
        csv.write_text("".join(f"{x},{y},{label}\n" for x, y, label in rows))
        left = 400 + 4 * k
        entries[name] = {
            "slide_name": f"{patient}-01Z-00-DX1",
            "organ": ("kidney", "bladder")[k % 2],
            "subset": "train",
            "mpp_x": 0.2,
            "cell": {"x_start": 4 * left, "y_start": 800, "x_end": 4 * left + 1024, "y_end": 1824},
            "tissue": {"x_start": 0, "y_start": 0, "x_end": 4096, "y_end": 4096},
        }
    (folder / "metadata.json").write_text(json.dumps({"sample_pairs": entries}))
    return folder


class TinyNetwork(nn.Module):
    """An encoder and a decoder of one convolution each; batch norm and dropout only where asked for."""

    def __init__(self, *, dropout: float = 0.0, batch_norm: bool = False) -> None:
        super().__init__()
        encoder = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4) if batch_norm else nn.Identity()]
        self.body = nn.Module()
        self.body.encoder = nn.Sequential(*encoder, nn.ReLU(), nn.Dropout(dropout))
        self.body.decoder = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body.decoder(self.body.encoder(x))
        return logits


def tiny_network(*, dropout: float = 0.0, batch_norm: bool = False) -> TinyNetwork:
    """Always the same weights."""
    torch.manual_seed(5)
    return TinyNetwork(dropout=dropout, batch_norm=batch_norm)


def tiny_batch(step: int, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Images whose bright pixels are of class 1: parts of a batch that follows from the step alone."""
    random = np.random.default_rng([9, step])
    images = torch.from_numpy(random.random((8, 3, 8, 8), np.float32))[first:last]
    return images, (images.mean(1) > 0.5).long()


def tiny_feed(batch: Batch = tiny_batch) -> Feed:
    """A feed of what `batch` makes for (step, first, last)."""

    def batches(parts: Sequence[MicroBatch]) -> Iterator[tuple[Tensor, Tensor]]:
        return (batch(*part) for part in parts)

    return batches
