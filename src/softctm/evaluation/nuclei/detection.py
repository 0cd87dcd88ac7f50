"""How many nuclei are found, and named rightly: one-to-one assignment of their centers.

Graham et al. (HoVer-Net), Medical Image Analysis 2019; Hörst et al. (CellViT), arXiv 2306.15350, section 4.3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from softctm.evaluation.scores import ratio
from softctm.nuclei_table import NucleiTable

RADIUS_PX = {40: 12, 20: 6}
"""Largest distance of two centers that are the same nucleus' by magnification, itself included: 3 µm."""


def pair_centers(true: NucleiTable, predicted: NucleiTable, radius: float) -> tuple[NDArray[np.intp], ...]:
    """Assign the nuclei of two tables one to one, so that the sum of all distances is least.

    Only then are the pairs dropped whose distance exceeds the radius, as both papers' programs have it.

    Returns
    -------
    true, predicted : (K,) intp
        Rows of the pairs.
    """
    if not len(true) or not len(predicted):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    distance = cdist(np.column_stack((true.x, true.y)), np.column_stack((predicted.x, predicted.y)))
    first, second = linear_sum_assignment(distance)
    near = distance[first, second] <= radius
    return first[near], second[near]


def detection_counts(
    true: NucleiTable, predicted: NucleiTable, *, radius: float, types: int
) -> NDArray[np.int64]:
    """Count what is found and what it is called.

    Parameters
    ----------
    true, predicted : NucleiTable
        Of one image; types are numbers of one list.
    radius : float
        In pixels; see `RADIUS_PX`.
    types : int
        Number of types T, with background.

    Returns
    -------
    (T, 5) int64
        TP, FP_c and FN_c of paired nuclei: right type; taken for this type; of it, but taken for another.
        FP_d and FN_d, unpaired ones: predicted; true. Row 0: whatever the type, so that the second and third
        are 0; row t: type t.
    """
    first, second = pair_centers(true, predicted, radius)
    kinds, claims = true.type.astype(np.int64), predicted.type.astype(np.int64)
    agree = kinds[first] == claims[second]
    is_fn, is_fp = np.ones(len(true), bool), np.ones(len(predicted), bool)
    is_fn[first] = is_fp[second] = False
    columns = (
        kinds[first][agree],
        claims[second][~agree],
        kinds[first][~agree],
        claims[is_fp],
        kinds[is_fn],
    )
    counts = np.stack([np.bincount(column, minlength=types) for column in columns], axis=1)
    counts[0] = len(first), 0, 0, is_fp.sum(), is_fn.sum()
    return counts


def detection_scores(
    counts: NDArray[np.generic],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of counts (…, 5), with the papers' weights: a wrong type counts twice.

    P = TP / (TP + 2 FP_c + FP_d), R = TP / (TP + 2 FN_c + FN_d), F1 = 2 TP / (2 TP + 2 FP_c + 2 FN_c + FP_d +
    FN_d), where c are paired nuclei of another type, d unpaired ones.

    Returns
    -------
    precision, recall, f1 : (…) float64
        Each 0 … 1; NaN where there is nothing to divide by.
    """
    tp, fp_c, fn_c, fp_d, fn_d = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    fp, fn = 2 * fp_c + fp_d, 2 * fn_c + fn_d
    return (
        ratio(tp, tp + fp, np.nan),
        ratio(tp, tp + fn, np.nan),
        ratio(2 * tp, 2 * tp + fp + fn, np.nan),
    )
