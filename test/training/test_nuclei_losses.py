"""Each term of the nuclei networks' loss by itself, computed anew in NumPy from the papers' formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from softctm.training.nuclei.losses import LossWeights, nuclei_loss

NOTHING = LossWeights(**{field.name: 0.0 for field in fields(LossWeights)})
TYPES, TISSUES = 3, 4
Array = NDArray[np.float64]


def _target() -> Array:
    """Two images: nuclei of known and of unknown type; the first one's tissue is known."""
    random = np.random.default_rng(4)
    target = np.zeros((2, 5, 12, 12))
    target[:, 0] = random.random((2, 12, 12)) < 0.4
    inside = target[:, 0] > 0
    target[:, 1:3] = random.uniform(-1, 1, (2, 2, 12, 12)) * target[:, :1]
    target[:, 3][inside] = random.choice([1, 2, -1], inside.sum())
    target[0, 4], target[1, 4] = 2, -1
    return target


MAPS = np.random.default_rng(5).normal(0, 1.5, (2, 4 + TYPES, 12, 12))
TARGET = _target()
TISSUE = np.random.default_rng(6).normal(0, 1, (2, TISSUES))
NUCLEUS, TYPE = TARGET[:, 0].astype(int), TARGET[:, 3].astype(int)


def _probability(logits: Array) -> Array:
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def _by_class(logits: Array, labels: NDArray[np.int64], of_class: Callable[..., float]) -> float:
    """Mean over classes of what TP, FN and FP give, in the pixels whose label is known."""
    known, values = labels >= 0, []
    for number, probability in enumerate(np.moveaxis(_probability(logits), 1, 0)):
        true = labels == number
        hit = probability[true].sum()
        values.append(of_class(hit, true.sum() - hit, probability[known].sum() - hit))
    return float(np.mean(values))


def _focal_tversky(hit: float, missed: float, false: float) -> float:
    return (1 - (hit + 1) / (hit + 0.7 * missed + 0.3 * false + 1)) ** (3 / 4)


def _dice(hit: float, missed: float, false: float) -> float:
    return 1 - (2 * hit + 1) / (2 * hit + missed + false + 1)


def _cross_entropy(logits: Array, labels: NDArray[np.int64]) -> float:
    probability = np.moveaxis(_probability(logits), 1, -1)
    known = labels >= 0
    return float(-np.log(probability[known, labels[known]]).mean())


def _gradient_error() -> float:
    down, right = np.mgrid[-2:3, -2:3]
    kernel = right / np.maximum(down**2 + right**2, 1)
    difference = MAPS[:, 2:4] - TARGET[:, 1:3]
    squares = 0.0
    for image, inside in zip(difference, NUCLEUS == 1, strict=True):
        for plane, along in zip(image, (kernel, kernel.T), strict=True):
            squares += (ndimage.correlate(plane, along, mode="constant")[inside] ** 2).sum()
    return float(squares / (2 * (NUCLEUS == 1).sum()))


EXPECTED = {
    "np_focal_tversky": _by_class(MAPS[:, :2], NUCLEUS, _focal_tversky),
    "np_dice": _by_class(MAPS[:, :2], NUCLEUS, _dice),
    "np_cross_entropy": _cross_entropy(MAPS[:, :2], NUCLEUS),
    "hv_square_error": float(((MAPS[:, 2:4] - TARGET[:, 1:3]) ** 2).mean()),
    "hv_gradient_error": _gradient_error(),
    "nt_focal_tversky": _by_class(MAPS[:, 4:], TYPE, _focal_tversky),
    "nt_dice": _by_class(MAPS[:, 4:], TYPE, _dice),
    "nt_cross_entropy": _cross_entropy(MAPS[:, 4:], TYPE),
    # The mean over all images, of which the second's tissue is unknown.
    "tissue_cross_entropy": float(-np.log(_probability(TISSUE)[0, 2]) / 2),
}


def _loss(weights: LossWeights) -> float:
    maps, target, tissue = (torch.from_numpy(array).float() for array in (MAPS, TARGET, TISSUE))
    return nuclei_loss(maps, target, weights, tissue).item()


def test_every_weight_is_of_a_term_that_is_tested() -> None:
    assert EXPECTED.keys() == {field.name for field in fields(LossWeights)} - {"nt_balance"}
    assert len({round(value, 4) for value in EXPECTED.values()}) == len(EXPECTED)
    assert _loss(NOTHING) == 0


@pytest.mark.parametrize("name", EXPECTED)
def test_a_term_by_itself_times_its_weight(name: str) -> None:
    for weight in (1.0, 2.0):
        found = _loss(replace(NOTHING, **{name: weight}))
        assert found == pytest.approx(weight * EXPECTED[name], rel=1e-4)


def test_terms_add_up() -> None:
    weights = LossWeights(*range(1, 10))
    expected = sum(getattr(weights, name) * value for name, value in EXPECTED.items())
    assert _loss(weights) == pytest.approx(expected, rel=1e-4)
