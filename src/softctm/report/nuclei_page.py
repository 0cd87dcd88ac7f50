"""The report on nuclei: scores, and the outlines of some images, on one page that needs no other file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from softctm import __version__
from softctm.datasets.nuclei import NucleiDataset, NucleiLabels
from softctm.errors import InputError
from softctm.evaluation.bootstrap import Estimate
from softctm.evaluation.nuclei.detection import RADIUS_PX
from softctm.evaluation.nuclei.images import ImageScore
from softctm.evaluation.nuclei.scores import NucleiEvaluation
from softctm.postprocessing.outlines import outlines
from softctm.report.embedded_images import jpeg_uri
from softctm.report.templating import page_template, resource
from softctm.storage.files import write_bytes_atomically

SHOWN_SIDE = 1024
"""Of larger images, the middle of this side is shown, pixels."""

_JPEG_LIMIT = 420_000
_GROUPS = ("worst", "median", "best")

OUTCOMES = {
    "tp": "predicted, matched (TP)",
    "fp": "predicted, without a match (FP)",
    "fn": "annotated, without a match (FN)",
    "true": "annotated, matched",
}
"""Outcome of an outline → what the page calls it; a match has an IoU above one half."""


@dataclass(frozen=True)
class Outline:
    """One nucleus as the page draws it: an SVG path in half pixels, its outcome, its type, words about it."""

    path: str
    outcome: str
    kind: int
    words: str


@dataclass(frozen=True)
class ShownImage:
    """One image with its nuclei."""

    name: str
    group: str
    detail: str
    width: int
    height: int
    uri: str
    outlines: Sequence[Outline]
    note: str


def write_nuclei_report(
    evaluation: NucleiEvaluation,
    truth: NucleiDataset,
    predictions: NucleiDataset,
    path: Path,
    *,
    each: int = 2,
) -> None:
    """Write the page.

    Parameters
    ----------
    evaluation : NucleiEvaluation
        Of these predictions against this truth.
    truth, predictions : NucleiDataset
        Read again for the images that are shown.
    path : Path
        The HTML file; its folder exists.
    each : int
        How many worst, median and best images by bPQ are shown.

    Raises
    ------
    InputError, OutputError
        If an image cannot be read or the page not be written.
    """
    chosen = chosen_images(evaluation.images, each)
    place = {name: i for i, name in enumerate(predictions.names)}
    shown, warnings = [], []
    for number, group in chosen.items():
        score = evaluation.images[number]
        try:
            image = truth.image(number)
        except InputError as error:
            warnings.append(f"Not shown: {error}")
            continue
        pair = truth.labels(number), predictions.labels(place[score.name])
        shown.append(_shown(score, image, pair, group, evaluation, (truth, predictions)))
    page = page_template("nuclei.html.j2").render(
        evaluation=evaluation,
        radius=RADIUS_PX[evaluation.magnification],
        shown=shown,
        outcomes=OUTCOMES,
        warnings=warnings,
        number=_number,
        interval=_interval,
        css=Markup(resource("report.css") + resource("nuclei.css")),
        script=Markup(resource("nuclei.js")),
        version=__version__,
        made_on=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
    write_bytes_atomically(path, page.encode())


def chosen_images(images: Sequence[ImageScore], each: int) -> dict[int, str]:
    """Numbers of the worst, median and best images by bPQ → their group; all where there are few."""
    quality = np.array([image.figures["bpq"] for image in images])
    order = np.argsort(quality, kind="stable")[: int(np.isfinite(quality).sum())].tolist()
    if len(order) <= 3 * each:
        return dict.fromkeys(order, "from worst to best")
    middle = (len(order) - each) // 2
    parts = (order[:each], order[middle : middle + each], order[-each:])
    return {number: group for group, part in zip(_GROUPS, parts, strict=True) for number in part}


def _shown(
    score: ImageScore,
    image: NDArray[np.uint8],
    pair: tuple[NucleiLabels, NucleiLabels],
    group: str,
    evaluation: NucleiEvaluation,
    datasets: tuple[NucleiDataset, NucleiDataset],
) -> ShownImage:
    """Cut out the middle, and draw the nuclei of both maps there."""
    height, width = image.shape[:2]
    top, left = max(height - SHOWN_SIDE, 0) // 2, max(width - SHOWN_SIDE, 0) // 2
    window = np.s_[top : top + SHOWN_SIDE, left : left + SHOWN_SIDE]
    kinds = {kind.name: i for i, kind in enumerate(evaluation.types)}
    drawn = []
    # Predicted outlines lie above the true ones.
    for side, labels, dataset, outcomes in zip(
        (0, 1), pair, datasets, (("true", "fn"), ("tp", "fp")), strict=True
    ):
        matched = set(score.matches[:, side].tolist())
        table = labels.table
        named = {
            number: evaluation.merged.get(dataset.types[kind].name, dataset.types[kind].name)
            for number, kind in zip(table.id.tolist(), table.type.tolist(), strict=True)
        }
        found = outlines(labels.instances[window])
        for i, number in enumerate(found.id.tolist()):
            outcome = outcomes[number not in matched]
            name = named.get(number, "no type")
            words = f"{OUTCOMES[outcome]}: {number}" + (f", {name}" if len(evaluation.types) > 1 else "")
            drawn.append(Outline(_path(found[i]), outcome, kinds.get(name, 0), words))
    shown = image[window]
    figures = score.figures
    organ = f"{score.organ}, " if score.organ else ""
    return ShownImage(
        name=score.name,
        group=group,
        detail=f"{organ}bPQ {_number(figures['bpq'], 2)}, F1 {_number(figures['detection_f1'], 2)}",
        width=shown.shape[1],
        height=shown.shape[0],
        uri=jpeg_uri(np.ascontiguousarray(shown), _JPEG_LIMIT),
        outlines=drawn,
        note=f"The middle of {width} × {height} pixels." if shown.shape != image.shape else "",
    )


def _path(polygon: NDArray[np.float64]) -> str:
    """A polygon as an SVG path in half pixels, corners relative to each other."""
    corners = np.rint(polygon * 2).astype(int)
    steps = "l".join(f"{x} {y}" for x, y in np.diff(corners, axis=0).tolist())
    return f"M{corners[0, 0]} {corners[0, 1]}l{steps}z"


def _number(value: float, decimals: int = 3) -> str:
    return "–" if math.isnan(value) else f"{value:.{decimals}f}"


def _interval(figure: Estimate) -> str:
    """The interval for the page; empty where there is none."""
    return "" if math.isnan(figure.low) else f"{figure.low:.3f} … {figure.high:.3f}"
