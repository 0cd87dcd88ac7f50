"""An evaluation of nuclei as files: JSON with everything, CSV tables of figures and images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from softctm.evaluation.nuclei.scores import NucleiEvaluation
from softctm.report.tables import csv_text
from softctm.storage.files import write_bytes_atomically, write_json_atomically

SUMMARY, FIGURES, IMAGES = "evaluation.json", "figures.csv", "images.csv"
FILES = (SUMMARY, FIGURES, IMAGES)
"""What is written."""


def write_nuclei_evaluation(evaluation: NucleiEvaluation, folder: Path) -> None:
    """Write `evaluation.json`, `figures.csv` (one row per figure) and `images.csv` (a row an image).

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    write_json_atomically(folder / SUMMARY, evaluation.to_json(), indent=1)
    write_bytes_atomically(folder / FIGURES, csv_text(_figure_rows(evaluation)).encode())
    rows = [image.row() | _by_type(evaluation, number) for number, image in enumerate(evaluation.images)]
    write_bytes_atomically(folder / IMAGES, csv_text(rows).encode())


def _figure_rows(evaluation: NucleiEvaluation) -> Iterator[dict[str, Any]]:
    """Section, group within it, name, value, ends of the interval."""
    groups = [("all", evaluation.overall.name, evaluation.overall.figures)]
    groups += [("type", group.name, group.figures) for group in evaluation.by_type]
    groups += [("organ", group.name, group.figures) for group in evaluation.organs]
    groups.append(("mean of organs", "all", evaluation.over_organs))
    for section, group, figures in groups:
        for name, figure in figures.items():
            yield {
                "section": section,
                "group": group,
                "figure": name,
                "value": figure.value,
                "low": figure.low,
                "high": figure.high,
            }


def _by_type(evaluation: NucleiEvaluation, number: int) -> dict[str, float]:
    """PQ of each type in one image."""
    quality = evaluation.images[number].quality[:, 0].tolist()
    return {f"pq_{kind.name}": quality[i] for i, kind in enumerate(evaluation.types) if i}
