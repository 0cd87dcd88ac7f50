"""The sum of probabilities, its turning back and its mean, against NumPy in double precision."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from softctm.inference.head_mean import adding_graph, joining_graph, mean_graph, pieces
from softctm.inference.tta import IDENTITY, VIEWS, View, first_views

Map = NDArray[np.float32]
ZERO = np.zeros((1, 1, 1, 1), np.float32)


def run(model: bytes, *values: Map) -> list[Map]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return session.run(None, dict(zip(names, values, strict=True)))


def turned(image: Map, view: View) -> Map:
    flipped = image[..., ::-1] if view.flipped else image
    return np.ascontiguousarray(np.rot90(flipped, -view.quarter_turns, axes=(-2, -1)))


def softmax(logits: Map) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def mean(
    outputs: list[list[Map]], views: tuple[View, ...], passes: list[int], from_logits: bool, strips: int
) -> tuple[Map, Map]:
    """The mean of `outputs`, one list a pass, of networks' batches; `passes` are the views in each."""
    classes = outputs[0][0].shape[1]
    kind, total, last, done = (classes, from_logits, strips), ZERO, IDENTITY, 0
    for count, batches in zip(passes, outputs, strict=True):
        now, done = views[done : done + count], done + count
        sums = [ZERO] * pieces(*kind)
        for batch in batches:
            sums = run(adding_graph(*kind, 1024), batch, *sums)
        (total,) = run(joining_graph(now, len(batches[0]), last, *kind, 1024), total, *sums)
        last = now[-1]
    weight = 1 / (len(views) * len(outputs[0]))
    return tuple(run(mean_graph([last], weight, classes, from_logits, 1024), total))


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize(
    ("classes", "passes", "spare", "strips"),
    [(2, [1, 1, 1, 1], 0, 16), (3, [1, 1], 0, 7), (3, [3, 1], 2, 1), (4, [2], 0, 16), (1, [1], 0, 2)],
)
def test_is_the_mean_over_networks_and_views_turned_back(
    classes: int, passes: list[int], spare: int, strips: int, from_logits: bool
) -> None:
    random = np.random.default_rng(classes)
    views = first_views(sum(passes))
    rows = [max(passes) if spare else count for count in passes]
    outputs = [
        [random.normal(0, 4, (count, classes, 1024, 1024)).astype(np.float32) for _ in range(2)]
        for count in rows
    ]
    expected, done = np.zeros((1, classes, 1024, 1024)), 0
    for count, batches in zip(passes, outputs, strict=True):
        for batch in batches:
            for row, view in enumerate(views[done : done + count]):
                values = softmax(batch[row : row + 1]) if from_logits else batch[row : row + 1]
                undo = next(other for other in VIEWS if is_inverse(other, view))
                expected += turned(values, undo) / (2 * len(views))
        done += count
    found, check = mean(outputs, views, passes, from_logits, strips)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.isfinite(check)


def is_inverse(one: View, other: View) -> bool:
    corner = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    return np.array_equal(turned(turned(corner, one), other), corner)


@pytest.mark.parametrize("classes", [2, 3])
def test_logits_far_apart_do_not_overflow(classes: int) -> None:
    logits = np.zeros((1, classes, 1024, 1024), np.float32)
    logits[:, 1:] = 900
    logits[:, -1, 512:] = 940
    logits[:, :, 768:] -= 5000
    found, check = mean([[logits]], (IDENTITY,), [1], True, 16)
    np.testing.assert_allclose(found, softmax(logits), atol=1e-6)
    assert np.isfinite(check)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("from_logits", [True, False])
def test_the_check_shows_values_that_are_not_finite(classes: int, value: float, from_logits: bool) -> None:
    for index in range(classes):
        output = np.zeros((1, classes, 1024, 1024), np.float32)
        output[0, index, 77, 1000] = value
        _, check = mean([[output, np.zeros_like(output)]], (VIEWS[5],), [1], from_logits, 16)
        assert not np.isfinite(check)


def test_sums_of_several_threads_are_turned_back_and_added() -> None:
    random = np.random.default_rng(0)
    image = random.random((1, 3, 1024, 1024), np.float32)
    views = (VIEWS[3], VIEWS[6], VIEWS[7])
    found, _ = run(mean_graph(views, 1 / 3, 3, False, 1024), *(turned(image, view) for view in views))
    np.testing.assert_allclose(found, image, atol=1e-6)
