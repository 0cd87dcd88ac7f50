"""What a model calls its outputs is checked on the first image, by one line that says what to write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_networks import network, write_folder, write_manifest

from softctm import CellTissuePair, TissueWindow, load_detector
from softctm.errors import ModelError
from softctm.inference.output_checks import check_values
from softctm.model.manifest import Head

NOISE = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
PAIR = CellTissuePair(NOISE, NOISE, TissueWindow(0, 0))


def head(activation: str) -> Head:
    return Head(name="cells", classes=("a", "b"), activation=activation)  # type: ignore[arg-type]


def maps(*pixels: tuple[float, float]) -> np.ndarray:
    return np.array(pixels, np.float32).T.reshape(1, 2, 1, -1)


@pytest.mark.parametrize(
    ("values", "are_probabilities"),
    [
        (maps((0.25, 0.75), (1, 0)), True),
        (maps((0.2505, 0.75), (1.0005, -0.0005)), True),  # within 1e-3
        (maps((0.25, 0.75), (0.252, 0.75)), False),
        (maps((0.25, 0.75), (1.2, -0.2)), False),
        (maps((3, -4), (0, 1)), False),
    ],
)
def test_probabilities_lie_in_0_to_1_and_sum_to_1(values: np.ndarray, are_probabilities: bool) -> None:
    right, wrong = ("probabilities", "logits") if are_probabilities else ("logits", "probabilities")
    assert check_values(values, head(right), "cells", "cell.onnx")
    assert check_values(values, head("none"), "cells", "cell.onnx")
    with pytest.raises(ModelError, match=rf'which are {right}, not {wrong}; write "activation": "{right}"'):
        check_values(values, head(wrong), "cells", "cell.onnx")


def test_values_that_are_not_finite_say_nothing() -> None:
    assert not check_values(maps((np.nan, 1), (0, 1)), head("probabilities"), "cells", "cell.onnx")


def test_the_projects_own_networks_without_their_manifest_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)  # tissue gives logits, as the authors' does
    (folder / "cell_fold0.onnx").write_bytes(network(1, 5, 3))  # logits, where theirs gives probabilities
    detector = load_detector(folder, device="cpu", views=1)
    with pytest.raises(ModelError, match=r"cell_fold0\.onnx: .*\"activation\": \"logits\".*stages\.cells"):
        detector(PAIR)
    manifest = write_manifest(folder)
    manifest["stages"]["cells"]["heads"][0]["activation"] = "logits"
    (folder / "model.json").write_text(json.dumps(manifest))
    assert len(load_detector(folder, device="cpu", views=1)(PAIR)) > 0


def test_every_network_is_checked(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, folds=2)
    (folder / "cell_fold1.onnx").write_bytes(network(1, 5, 3))
    with pytest.raises(ModelError, match=r"cell_fold1\.onnx: gives values from"):
        load_detector(folder, device="cpu", views=2)(PAIR)
