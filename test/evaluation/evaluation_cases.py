"""Synthetic cells and releases, and the matching rule spelled out word by word: for evaluation tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from softctm.points import CellPoints

BC, TC = 1, 2


def cells(*rows: tuple[float, ...]) -> CellPoints:
    """Cells from (x, y, class) or (x, y, class, score)."""
    full = np.array([(*row, 1.0)[:4] for row in rows], np.float64).reshape(-1, 4)
    return CellPoints(
        full[:, 0].astype(np.int32),
        full[:, 1].astype(np.int32),
        full[:, 2].astype(np.uint8),
        full[:, 3].astype(np.float32),
    )


def crowded_cells(min_size: int = 0, max_size: int = 25) -> st.SearchStrategy[CellPoints]:
    """Cells so close to each other, and with so few scores, that ties of every kind are common."""
    row = st.tuples(
        st.integers(0, 45),
        st.integers(0, 30),
        st.sampled_from([BC, TC]),
        st.sampled_from([0.2, 0.5, 0.7, 1.0]),
    )
    return st.lists(row, min_size=min_size, max_size=max_size).map(lambda rows: cells(*rows))


def random_cells(random: np.random.Generator, count: int) -> CellPoints:
    """Cells anywhere in a patch, with all scores different."""
    return CellPoints(
        random.integers(0, 1024, count, dtype=np.int32),
        random.integers(0, 1024, count, dtype=np.int32),
        random.integers(1, 3, count).astype(np.uint8),
        (random.permutation(count) / max(count, 1)).astype(np.float32),
    )


def imperfect(random: np.random.Generator, true: CellPoints) -> CellPoints:
    """What a middling detector would make of the true cells: some moved, lost, renamed, invented."""
    kept = random.random(len(true)) < 0.85
    moved = CellPoints(
        np.clip(true.x[kept] + random.normal(0, 5, kept.sum()), 0, 1023).astype(np.int32),
        np.clip(true.y[kept] + random.normal(0, 5, kept.sum()), 0, 1023).astype(np.int32),
        np.where(random.random(kept.sum()) < 0.1, 3 - true.label[kept], true.label[kept]).astype(np.uint8),
        random.random(kept.sum(), np.float32),
    )
    return join(moved, random_cells(random, len(true) // 8))


def join(*parts: CellPoints) -> CellPoints:
    """Cells of several lists, one after the other."""
    return CellPoints(
        *(np.concatenate([getattr(part, field) for part in parts]) for field in ("x", "y", "label", "score"))
    )


def take(points: CellPoints, index: Any) -> CellPoints:
    """Some of the cells, by index, mask or permutation."""
    return CellPoints(points.x[index], points.y[index], points.label[index], points.score[index])


def literal_match(predicted: CellPoints, true: CellPoints, same_class: bool = True) -> list[int]:
    """The rule as the method states it: every pair of points, no tree, no cleverness."""
    order = sorted(range(len(predicted)), key=lambda i: -predicted.score[i])  # sorted() is stable
    taken: set[int] = set()
    partner = [-1] * len(predicted)
    for i in order:
        best = None
        for j in range(len(true)):
            if j in taken or (same_class and predicted.label[i] != true.label[j]):
                continue
            squared = (int(predicted.x[i]) - int(true.x[j])) ** 2 + (
                int(predicted.y[i]) - int(true.y[j])
            ) ** 2
            if squared <= 15 * 15 and (best is None or squared < best):
                best, partner[i] = squared, j
        if partner[i] >= 0:
            taken.add(partner[i])
    return partner


def document(pairs: Sequence[CellPoints], **extra: Any) -> dict[str, Any]:
    """The challenge's JSON of these cells."""
    return {
        "type": "Multiple points",
        "version": {"major": 1, "minor": 0},
        "points": [
            {"name": f"image_{i}", "point": [x, y, label], "probability": float(f"{score:.6f}")}
            for i, points in enumerate(pairs)
            for x, y, label, score in zip(
                points.x.tolist(),
                points.y.tolist(),
                points.label.tolist(),
                points.score.tolist(),
                strict=True,
            )
        ],
        **extra,
    }


def write_json(path: Path, value: Any) -> Path:
    """Write JSON and return where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_release(
    folder: Path, pairs: Sequence[CellPoints], organs: Sequence[str] = (), subset: str = "train"
) -> Path:
    """An OCELOT release without images: IDs 001, 002, …, windows at (100, 300) of the tissue patch.

    The tissue annotation is cancer area in columns 0 … 199, background in 200 … 299, unknown from 300 on: of
    the cell patch, cancer area is x < 400, background 400 … 799, unknown the rest.
    """
    annotations = folder / "annotations" / subset
    (annotations / "cell").mkdir(parents=True, exist_ok=True)
    (annotations / "tissue").mkdir(exist_ok=True)
    tissue = np.full((1024, 1024), 255, np.uint8)
    tissue[:, :200], tissue[:, 200:300] = 2, 1
    entries = {}
    for i, points in enumerate(pairs):
        name = f"{i + 1:03d}"
        rows = zip(points.x.tolist(), points.y.tolist(), points.label.tolist(), strict=True)
        (annotations / "cell" / f"{name}.csv").write_text(
            "".join(f"{x},{y},{label}\n" for x, y, label in rows)
        )
        Image.fromarray(tissue).save(annotations / "tissue" / f"{name}.png")
        entries[name] = {
            "slide_name": f"TCGA-00-{i:04d}-01Z",
            "organ": organs[i] if organs else "kidney",
            "subset": subset,
            "tissue": {"x_start": 0, "y_start": 0, "x_end": 4096, "y_end": 4096},
            "cell": {"x_start": 400, "y_start": 1200, "x_end": 1424, "y_end": 2224},
        }
    write_json(folder / "metadata.json", {"sample_pairs": entries})
    return folder
