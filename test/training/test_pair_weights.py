"""Pairs that are drawn less often in training, or never."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from softctm.errors import InputError
from softctm.training.fold_training import FoldJob
from softctm.training.initialization import from_encoder
from softctm.training.loop import LoopConfig
from softctm.training.pair_weights import PairWeights, read_pair_weights
from softctm.training.sampling import balanced_weights, draw


def pairs(*names: str) -> Any:
    return [SimpleNamespace(id=name) for name in names]


def test_pairs_without_a_weight_count_in_full(tmp_path: Path) -> None:
    weights = PairWeights("by hand", {"002": 0.5, "001": 0.0})
    (tmp_path / "weights.json").write_text(json.dumps(weights.to_json()))
    assert read_pair_weights(tmp_path / "weights.json") == weights
    assert weights.of(pairs("001", "002", "003")) == [0, 0.5, 1]
    with pytest.raises(InputError, match="there is no pair 001 in the data"):
        weights.of(pairs("002"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[]", "must be"),
        ('{"weights": [1]}', "must be"),
        ('{"weights": {}}', "by which rule"),
        ('{"rule": "r", "weights": {"001": -1}}', "the weight of pair 001 is -1"),
        ('{"rule": "r", "weights": {"001": "x"}}', "the weight of pair 001 is 'x'"),
        ('{"rule": "r", "weights": {"001": true}}', "the weight of pair 001 is True"),
        ('{"rule": "r", "weights": {"001": Infinity}}', "the weight of pair 001 is inf"),
        ("{", "not valid JSON"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "weights.json").write_text(content)
    with pytest.raises(InputError, match=complaint) as caught:
        read_pair_weights(tmp_path / "weights.json")
    assert str(tmp_path / "weights.json") in str(caught.value)


def test_a_pair_of_weight_zero_is_scored_and_never_trained_on(tmp_path: Path) -> None:
    job = FoldJob(
        1, [0, 1, 0, 1, 2], from_encoder(None), LoopConfig(), tmp_path, list("abcde"), [0, 0, 1, 1, 0.5]
    )
    assert job.training.tolist() == [2, 4]
    assert job.validation.tolist() == [1, 3]


def test_a_patch_of_half_the_weight_is_drawn_half_as_often() -> None:
    counts = np.array([[5.0, 5.0]] * 4)
    weights = balanced_weights(counts, np.array([1, 1, 0.5, 0.5]))
    np.testing.assert_allclose(weights, [1 / 3, 1 / 3, 1 / 6, 1 / 6])
    drawn = Counter(np.concatenate([draw(weights, 2, 0, step) for step in range(3000)]).tolist())
    assert drawn[0] / drawn[2] == pytest.approx(2, rel=0.1)
