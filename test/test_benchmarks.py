"""The yardstick's own parts, and the one ratio that must not get worse."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from tiny_networks import network, write_folder

from benchmarks.agreement import Agreement
from benchmarks.machine import operations
from benchmarks.plain import PlainDetector
from softctm import CellPoints, CellTissuePair, TissueWindow
from softctm.detector import Detector
from softctm.model import load_model


def points(*cells: tuple[int, int, int, float]) -> CellPoints:
    columns = list(zip(*cells, strict=True)) if cells else [(), (), (), ()]
    kinds = (np.int32, np.int32, np.uint8, np.float32)
    return CellPoints(*(np.array(values, kind) for values, kind in zip(columns, kinds, strict=True)))


def test_operations_of_one_convolution_by_hand() -> None:
    # 5 × 5 × 3 weights an output value: as many multiplications and additions, 2 × 1024² values.
    assert operations(network(0, 3, 2)) == 2 * (5 * 5 * 3) * 2 * 1024**2


def test_agreement_by_hand() -> None:
    agreement = Agreement()
    agreement.add(
        points((10, 10, 1, 0.5), (50, 50, 2, 0.9), (90, 90, 2, 0.7)),
        points((11, 10, 1, 0.6), (50, 50, 1, 0.8), (95, 90, 2, 0.7)),
    )
    agreement.add(points(), points((1, 1, 1, 0.5)))
    assert (agreement.expected, agreement.found) == (3, 4)
    assert (agreement.same_place, agreement.class_flips) == (2, 1)
    assert agreement.largest_score_difference == pytest.approx(0.1)
    assert agreement.share == pytest.approx(1 / 6)


def test_the_detector_finds_the_plain_ways_cells_in_no_more_processor_time(tmp_path: Path) -> None:
    model = load_model(write_folder(tmp_path, folds=2))
    random = np.random.default_rng(0)
    cell, tissue = (
        np.kron(random.integers(0, 256, (64, 64, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(2)
    )
    pair = CellTissuePair(cell, tissue, TissueWindow(100, 200))
    ways = (PlainDetector(model, views=2), Detector(model, device="cpu", views=2))
    seconds = [0.0, 0.0]
    for _ in range(3):
        for index, way in enumerate(ways):
            start = time.process_time()
            way(pair)
            seconds[index] += time.process_time() - start
    agreement = Agreement()
    agreement.add(ways[0](pair), ways[1](pair))
    assert agreement.share > 0.99
    # Half as long as the plain way is usual; the rest is room for a noisy machine.
    assert seconds[1] < seconds[0]
