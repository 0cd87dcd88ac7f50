"""Scores of nuclei image by image: what each contributes, and its own figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.nuclei import UNTYPED, NucleiDataset, NucleiLabels
from softctm.errors import InputError, UsageError
from softctm.evaluation.nuclei.detection import RADIUS_PX, detection_counts, detection_scores
from softctm.evaluation.nuclei.panoptic import panoptic_quality, shape_counts
from softctm.evaluation.scores import ratio
from softctm.nuclei_table import NucleusType, types_named


@dataclass(frozen=True)
class ImageScore:
    """One image; row 0 of what has T rows stands for nuclei of any type, row t for those of type t.

    Attributes
    ----------
    name : str
    organ : str or None
    panoptic : (T, 4) float64
        As in `ShapeCounts`.
    detection : (T, 5) int64
        As of `detection_counts`.
    jaccard, dice : (2,) int64
        Numerator and denominator.
    matches : (K, 2) int64
        True and predicted numbers of nuclei with an IoU above one half.
    """

    name: str
    organ: str | None
    panoptic: NDArray[np.float64]
    detection: NDArray[np.int64]
    jaccard: NDArray[np.int64]
    dice: NDArray[np.int64]
    matches: NDArray[np.int64]

    @property
    def true(self) -> NDArray[np.int64]:
        """(T,) Number of true nuclei."""
        return (self.panoptic[:, 0] + self.panoptic[:, 2]).astype(np.int64)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(T,) Number of predicted nuclei."""
        return (self.panoptic[:, 0] + self.panoptic[:, 1]).astype(np.int64)

    @property
    def quality(self) -> NDArray[np.float64]:
        """(T, 3) PQ, DQ, SQ; not defined (NaN) without true nuclei, as in the published programs."""
        parts = np.stack(panoptic_quality(self.panoptic), axis=1)
        return np.where(self.true[:, None] > 0, parts, np.nan)

    @property
    def figures(self) -> dict[str, float]:
        """This image's scores by name, 0 … 1; mPQ is the mean over the types that it holds."""
        by_type = self.quality[1:, 0]
        by_type = by_type[~np.isnan(by_type)]
        precision, recall, f1 = detection_scores(self.detection[0])
        figures = {
            **dict(zip(("bpq", "dq", "sq"), self.quality[0], strict=True)),
            "mpq": by_type.mean() if len(by_type) else np.nan,
            "aji": ratio(self.jaccard[0], self.jaccard[1], np.nan),
            "dice": ratio(self.dice[0], self.dice[1], np.nan),
            "detection_precision": precision,
            "detection_recall": recall,
            "detection_f1": f1,
        }
        return {name: float(value) for name, value in figures.items()}

    def row(self) -> dict[str, Any]:
        """The image in a row of a table: name, organ, counts, figures."""
        counts = {"true": int(self.true[0]), "predicted": int(self.predicted[0])}
        return {"name": self.name, "organ": self.organ, **counts, **self.figures}


def score_images(
    truth: NucleiDataset,
    predictions: NucleiDataset,
    *,
    magnification: int,
    merged: Mapping[str, str],
) -> tuple[list[ImageScore], tuple[NucleusType, ...]]:
    """Score every image of the truth against the prediction of the same name.

    Parameters
    ----------
    truth, predictions : NucleiDataset
        Types are the same where their names are.
    magnification : 40 or 20
    merged : mapping of str to str
        Type → name of the type that it is counted as, in both.

    Returns
    -------
    images : list of ImageScore
    types : tuple of NucleusType
        By number; background alone where one of the two has no types.

    Raises
    ------
    InputError
        If an image has no prediction, or one of another size.
    UsageError
        If a merged type occurs in neither.
    """
    types, numbers = _common_types((truth, predictions), merged)
    place = {name: i for i, name in enumerate(predictions.names)}
    if missing := [name for name in truth.names if name not in place]:
        raise InputError(f"image {missing[0]} of the truth has no prediction; predict it, or leave it out")
    images = []
    for index, (name, organ) in enumerate(zip(truth.names, truth.organs, strict=True)):
        true = _renumbered(truth.labels(index), numbers[0])
        predicted = _renumbered(predictions.labels(place[name]), numbers[1])
        if true.instances.shape != predicted.instances.shape:
            raise InputError(
                f"image {name}: the predicted map has the size {predicted.instances.shape}, the true one "
                f"{true.instances.shape}; predict it at its own size"
            )
        shapes = shape_counts(true, predicted, len(types))
        radius = RADIUS_PX[magnification]
        found = detection_counts(true.table, predicted.table, radius=radius, types=len(types))
        images.append(
            ImageScore(name, organ, shapes.panoptic, found, shapes.jaccard, shapes.dice, shapes.matches)
        )
    return images, types


def _common_types(
    datasets: tuple[NucleiDataset, NucleiDataset], merged: Mapping[str, str]
) -> tuple[tuple[NucleusType, ...], list[NDArray[np.uint8]]]:
    """One list of types, and for each data set the number there of each of its own."""
    if any(dataset.types == UNTYPED for dataset in datasets):
        if merged:
            raise UsageError("--merge: truth or predictions have no types that could be merged; leave it out")
        return UNTYPED[:1], [np.zeros(len(dataset.types), np.uint8) for dataset in datasets]
    own = [[kind.name for kind in dataset.types[1:]] for dataset in datasets]
    if absent := sorted(set(merged) - {name for names in own for name in names}):
        raise UsageError(
            f"--merge: no type is called {absent[0]}; there are {', '.join(sorted({*own[0], *own[1]}))}"
        )
    named = [[merged.get(name, name) for name in names] for names in own]
    common = list(dict.fromkeys(named[0] + named[1]))
    numbers = [np.array([0, *(common.index(name) + 1 for name in names)], np.uint8) for names in named]
    return types_named(common), numbers


def _renumbered(labels: NucleiLabels, numbers: NDArray[np.uint8]) -> NucleiLabels:
    """The same nuclei with types of the common list."""
    return replace(labels, table=replace(labels.table, type=numbers[labels.table.type]))
