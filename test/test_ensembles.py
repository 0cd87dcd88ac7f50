"""Two models on the same patients, compared by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.ensembles import compared
from softctm.evaluation.out_of_fold import AUTHORS_RULE, OutOfFold


def outcome(found: Sequence[int], tissue: Sequence[int]) -> OutOfFold:
    """Three pairs, the first two of one patient, with ten true cells of each class and ten pixels.

    Of each class of a pair as many are found as the list says, and nothing else.
    """
    cells, pixels = (np.array([[[n, 0, 10 - n]] * 2 for n in number], np.int64) for number in (found, tissue))
    return OutOfFold(
        rules={},
        rule=AUTHORS_RULE,
        counts=cells,
        authors_counts=cells,
        tissue_counts=pixels,
        fold_of=np.array([0, 0, 1]),
        organ_of=("kidney", "kidney", "bladder"),
        patient_of=("a", "a", "b"),
    )


def f1(found: int, true: int) -> float:
    return 2 * found / (found + true)


def test_differences_and_their_intervals_are_those_of_resampled_patients() -> None:
    rows = {
        (name, task): (pairs, both, apart)
        for name, pairs, task, both, apart in compared(
            outcome([6, 8, 5], [9, 9, 9]), outcome([4, 8, 6], [9, 9, 9])
        )
    }
    assert list(rows) == [(n, t) for n in ("all", "bladder", "kidney") for t in ("cells", "tissue")]
    pairs, both, apart = rows["all", "cells"]
    assert pairs == 3
    assert both == pytest.approx([f1(19, 30), f1(18, 30)])
    assert apart.value == pytest.approx(f1(19, 30) - f1(18, 30))
    # A quarter of the resamples hold patient b twice, a quarter patient a: the interval's ends.
    assert apart.low == pytest.approx(f1(5, 10) - f1(6, 10))
    assert apart.high == pytest.approx(f1(14, 20) - f1(12, 20))

    pairs, both, apart = rows["kidney", "cells"]
    assert pairs == 2
    assert both == pytest.approx([f1(14, 20), f1(12, 20)])
    assert math.isnan(apart.low)  # a single patient does not vary
    assert str(apart) == "+0.0735"

    _, both, apart = rows["all", "tissue"]
    assert both == pytest.approx([f1(27, 30)] * 2)
    assert (apart.value, apart.low, apart.high) == (0, 0, 0)
