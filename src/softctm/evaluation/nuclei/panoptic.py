"""How well the shapes of nuclei agree: panoptic quality, aggregated Jaccard index, Dice.

Kirillov et al., arXiv 1801.00868 (PQ = DQ × SQ); Kumar et al., IEEE TMI 2017 (AJI). Two nuclei match if their
intersection over union exceeds one half, which at most one nucleus of the other map can.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softctm.datasets.nuclei import NucleiLabels
from softctm.evaluation.scores import ratio
from softctm.postprocessing.label_overlap import label_overlap

MATCH_IOU = 0.5
"""Intersection over union that two nuclei exceed to match."""


@dataclass(frozen=True)
class ShapeCounts:
    """What one image contributes; sums over images are counts of all of them.

    Attributes
    ----------
    panoptic : (T, 4) float64
        Matches, false positives, false negatives, sum of the matches' IoU. Row 0: nuclei of any type; row t:
        those of type t, which match those of their own type only.
    jaccard : (2,) int64
        Aggregated intersection and union, pixels.
    dice : (2,) int64
        Twice the pixels that are nucleus in both maps, and those of the one plus those of the other.
    matches : (K, 2) int64
        Numbers in the true and in the predicted map, of any type.
    """

    panoptic: NDArray[np.float64]
    jaccard: NDArray[np.int64]
    dice: NDArray[np.int64]
    matches: NDArray[np.int64]


def shape_counts(true: NucleiLabels, predicted: NucleiLabels, types: int) -> ShapeCounts:
    """Compare two instance maps of one image.

    Parameters
    ----------
    true, predicted : NucleiLabels
        Types are numbers of one list. A nucleus that is in no table is of type 0.
    types : int
        Number of types T, with background.

    Raises
    ------
    ValueError
        If the maps have different shapes.
    """
    true_area = np.bincount(true.instances.ravel())
    predicted_area = np.bincount(predicted.instances.ravel())
    true_area[0] = predicted_area[0] = 0
    overlap = label_overlap(true.instances, predicted.instances)
    union = true_area[overlap.first] + predicted_area[overlap.second] - overlap.pixels
    iou = overlap.pixels / union
    kinds, claims = _type_of(true, len(true_area)), _type_of(predicted, len(predicted_area))
    is_match = iou > MATCH_IOU
    first, second, matched_iou = overlap.first[is_match], overlap.second[is_match], iou[is_match]
    present = np.bincount(kinds[true_area > 0], minlength=types).astype(np.float64)
    claimed = np.bincount(claims[predicted_area > 0], minlength=types).astype(np.float64)
    present[0], claimed[0] = np.count_nonzero(true_area), np.count_nonzero(predicted_area)
    # Row 0 holds all matches; the others those between nuclei of one type.
    typed = (kinds[first] == claims[second]) & (kinds[first] > 0)
    tp = np.bincount(kinds[first][typed], minlength=types).astype(np.float64)
    # Without any pair, NumPy's sum has whole numbers.
    quality = np.bincount(kinds[first][typed], matched_iou[typed], minlength=types).astype(np.float64)
    tp[0], quality[0] = len(first), matched_iou.sum()
    # AJI: each true nucleus with the predicted one of largest IoU, then the areas of all that no pair holds.
    order = np.lexsort((-iou, overlap.first))
    best = order[np.flatnonzero(np.diff(overlap.first[order], prepend=-1))]
    alone = true_area.sum() - true_area[overlap.first[best]].sum()
    unused = predicted_area.sum() - predicted_area[np.unique(overlap.second[best])].sum()
    return ShapeCounts(
        panoptic=np.stack([tp, claimed - tp, present - tp, quality], axis=1),
        jaccard=np.array([overlap.pixels[best].sum(), union[best].sum() + alone + unused]),
        dice=np.array([2 * overlap.pixels.sum(), true_area.sum() + predicted_area.sum()]),
        matches=np.stack([first, second], axis=1),
    )


def panoptic_quality(
    counts: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Panoptic, detection and segmentation quality of counts (…, 4).

    Returns
    -------
    pq, dq, sq : (…) float64
        Each 0 … 1. NaN where there is no nucleus at all; SQ is 0 where none matches.
    """
    tp, fp, fn, quality = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    detection = ratio(tp, tp + (fp + fn) / 2, np.nan)
    segmentation = np.where(np.isnan(detection), np.nan, ratio(quality, tp, 0.0))
    return detection * segmentation, detection, segmentation


def _type_of(labels: NucleiLabels, length: int) -> NDArray[np.int64]:
    """Type by number in the map; 0 for those that are in no table."""
    kinds = np.zeros(length, np.int64)
    kinds[labels.table.id] = labels.table.type
    return kinds
