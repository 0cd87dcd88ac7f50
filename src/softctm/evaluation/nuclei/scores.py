"""Scores of nuclei over a data set: all images, by organ and by type, with bootstrap intervals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.nuclei import NucleiDataset
from softctm.datasets.patients import patient_of_image
from softctm.evaluation.bootstrap import CONFIDENCE_LEVEL, RESAMPLES, Bootstrap, Estimate
from softctm.evaluation.jsonable import jsonable
from softctm.evaluation.nuclei.detection import RADIUS_PX, detection_scores
from softctm.evaluation.nuclei.images import ImageScore, score_images
from softctm.evaluation.nuclei.panoptic import panoptic_quality
from softctm.evaluation.scores import ratio
from softctm.nuclei_table import NucleusType

SCHEMA_VERSION = 1
"""Rises when a field of the JSON changes its meaning or goes."""

_MEANS = ("bpq", "dq", "sq", "mpq", "aji", "dice")
"""Figures of an image of which papers report the mean over images."""


@dataclass(frozen=True)
class NucleiGroup:
    """The scores of some images, or of one type.

    Attributes
    ----------
    name : str
    images, true, predicted : int
        Number of images, true nuclei, predicted nuclei.
    figures : mapping of str to Estimate
        Of images: `bpq`, `dq`, `sq`, `mpq`, `aji`, `dice`, means over the images where they are defined, as
        papers report them; `pooled_bpq` and so on, of counts pooled over images, which hold the false
        positives of every image; `detection_precision`, `detection_recall`, `detection_f1`, pooled.
        Of a type: `pq` (mean), `pooled_pq`, `precision`, `recall`, `f1` (pooled). NaN where undefined.
    """

    name: str
    images: int
    true: int
    predicted: int
    figures: Mapping[str, Estimate]


@dataclass(frozen=True)
class NucleiEvaluation:
    """Everything about one set of predictions against one truth.

    Attributes
    ----------
    name : str
        What the predictions are called.
    types : tuple of NucleusType
        By number; background alone where nuclei have no types.
    overall : NucleiGroup
    by_type, organs : tuple of NucleiGroup
        Empty where types or organs are unknown.
    over_organs : mapping of str to Estimate
        `bpq` and `mpq`: the mean of the organs' means, as PanNuke's tables have it; empty without organs.
    images : tuple of ImageScore
    magnification : int
    merged : mapping of str to str
        Type of the data → one of `types` that it is counted as, where that has another name.
    resamples, seed : int
        Of the bootstrap over images, those of one TCGA patient together.
    """

    name: str
    types: tuple[NucleusType, ...]
    overall: NucleiGroup
    by_type: tuple[NucleiGroup, ...]
    organs: tuple[NucleiGroup, ...]
    over_organs: Mapping[str, Estimate]
    images: tuple[ImageScore, ...]
    magnification: int
    merged: Mapping[str, str]
    resamples: int
    seed: int

    @property
    def types_apart(self) -> tuple[list[str], list[str]] | None:
        """Names of the true and of the predicted types, where they have none in common; else None."""
        true, predicted = (
            [group.name for group in self.by_type if getattr(group, side)] for side in ("true", "predicted")
        )
        return (true, predicted) if true and predicted and not {*true} & {*predicted} else None

    def to_json(self) -> dict[str, Any]:
        """The evaluation as JSON's types; an interval is `{"value", "low", "high"}`, null is undefined."""
        settings = {
            "magnification": self.magnification,
            "radius_px": RADIUS_PX[self.magnification],
            "merged": self.merged,
            "resamples": self.resamples,
            "seed": self.seed,
            "confidence_level": CONFIDENCE_LEVEL,
        }
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "settings": settings,
            "types": [kind.name for kind in self.types[1:]],
            "overall": self.overall,
            "by_type": self.by_type,
            "organs": self.organs,
            "over_organs": self.over_organs,
            "images": [image.row() for image in self.images],
        }
        return {key: jsonable(value) for key, value in document.items()}


def evaluate_nuclei(
    truth: NucleiDataset,
    predictions: NucleiDataset,
    *,
    name: str,
    magnification: int = 40,
    merged: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
) -> NucleiEvaluation:
    """Score predicted nuclei.

    Parameters
    ----------
    truth, predictions : NucleiDataset
        Images and types are the same where their names are.
    name : str
        What the predictions are called.
    magnification : 40 or 20
        Of the images, for the radius of detection.
    merged : mapping of str to str, optional
        Type → name of the type that it is counted as, in both.
    resamples : int
        Bootstrap resamples of images, those of one TCGA patient together; 0 for no intervals.

    Raises
    ------
    InputError
        If an image has no prediction, or one of another size.
    UsageError
        If a merged type occurs in neither.
    """
    images, types = score_images(truth, predictions, magnification=magnification, merged=merged or {})
    patients = [patient_of_image(image.name) for image in images]
    bootstrap = Bootstrap(len(images), resamples, unit_of=patients)
    columns = _columns(images)
    organs = sorted({image.organ for image in images if image.organ is not None})
    member = {organ: np.array([image.organ == organ for image in images]) for organ in organs}
    overall = _group("all", images, np.ones(len(images), bool), columns, bootstrap)
    return NucleiEvaluation(
        name=name,
        types=types,
        overall=overall,
        by_type=tuple(_type_group(kind, types, images, bootstrap) for kind in range(1, len(types))),
        organs=tuple(_group(organ, images, member[organ], columns, bootstrap) for organ in organs),
        over_organs=_over_organs(columns, list(member.values()), bootstrap),
        images=tuple(images),
        magnification=magnification,
        merged=dict(merged or {}),
        resamples=resamples,
        seed=bootstrap.seed,
    )


def _columns(images: Sequence[ImageScore]) -> NDArray[np.float64]:
    """(n, C) What each image contributes to the sums that `_figures` takes apart."""
    own = np.array([[image.figures[name] for name in _MEANS] for image in images])
    counts = [
        np.concatenate([image.detection[0], image.jaccard, image.dice, image.panoptic.ravel()])
        for image in images
    ]
    return np.concatenate([np.nan_to_num(own), ~np.isnan(own), np.array(counts)], axis=1)


def _figures(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Figures of sums (…, C)."""
    count = len(_MEANS)
    means = ratio(sums[..., :count], sums[..., count : 2 * count], np.nan)
    rest = sums[..., 2 * count :]
    precision, recall, f1 = detection_scores(rest[..., :5])
    panoptic = rest[..., 9:].reshape(*rest.shape[:-1], (rest.shape[-1] - 9) // 4, 4)
    pq, dq, sq = panoptic_quality(panoptic)
    return {
        **{name: means[..., i] for i, name in enumerate(_MEANS)},
        "pooled_bpq": pq[..., 0],
        "pooled_dq": dq[..., 0],
        "pooled_sq": sq[..., 0],
        "pooled_mpq": _mean_of_defined(pq[..., 1:]),
        "pooled_aji": ratio(rest[..., 5], rest[..., 6], np.nan),
        "pooled_dice": ratio(rest[..., 7], rest[..., 8], np.nan),
        "detection_precision": precision,
        "detection_recall": recall,
        "detection_f1": f1,
    }


def _group(
    name: str,
    images: Sequence[ImageScore],
    member: NDArray[np.bool_],
    columns: NDArray[np.float64],
    bootstrap: Bootstrap,
) -> NucleiGroup:
    """Score some of the images; all are resampled, so that the number of a group's images varies too."""
    within = [image for image, is_member in zip(images, member, strict=True) if is_member]
    return NucleiGroup(
        name=name,
        images=len(within),
        true=sum(int(image.true[0]) for image in within),
        predicted=sum(int(image.predicted[0]) for image in within),
        figures=bootstrap.estimates(columns * member[:, None], _figures),
    )


def _type_group(
    kind: int, types: Sequence[NucleusType], images: Sequence[ImageScore], bootstrap: Bootstrap
) -> NucleiGroup:
    """Score one type over all images."""
    quality = np.array([image.quality[kind, 0] for image in images])
    counts = np.array([np.concatenate([image.panoptic[kind], image.detection[kind]]) for image in images])
    columns = np.column_stack([np.nan_to_num(quality), ~np.isnan(quality), counts])
    return NucleiGroup(
        name=types[kind].name,
        images=int((~np.isnan(quality)).sum()),
        true=sum(int(image.true[kind]) for image in images),
        predicted=sum(int(image.predicted[kind]) for image in images),
        figures=bootstrap.estimates(columns, _type_figures),
    )


def _type_figures(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Figures of a type, of sums (…, 11)."""
    precision, recall, f1 = detection_scores(sums[..., 6:])
    return {
        "pq": ratio(sums[..., 0], sums[..., 1], np.nan),
        "pooled_pq": panoptic_quality(sums[..., 2:6])[0],
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def _over_organs(
    columns: NDArray[np.float64], members: Sequence[NDArray[np.bool_]], bootstrap: Bootstrap
) -> dict[str, Estimate]:
    """Mean over the organs of their mean bPQ and mPQ."""
    if not members:
        return {}
    by_organ = np.stack([columns[:, : 2 * len(_MEANS)] * member[:, None] for member in members], axis=1)
    return {
        **bootstrap.estimates(by_organ, partial(_organ_mean, "bpq")),
        **bootstrap.estimates(by_organ, partial(_organ_mean, "mpq")),
    }


def _organ_mean(name: str, sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The mean over organs of one figure, of sums (…, organs, 2 · figures)."""
    place = _MEANS.index(name)
    return {name: _mean_of_defined(ratio(sums[..., place], sums[..., len(_MEANS) + place], np.nan))}


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without what is NaN; NaN where nothing is left."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        mean: NDArray[np.float64] = np.nanmean(values, axis=-1)
    return mean
