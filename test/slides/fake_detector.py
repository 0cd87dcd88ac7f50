"""A detector without networks: dark spots are cells, dark surroundings cancer area.

What it says of a pixel depends on the pixels around it alone: fields of view agree where they overlap.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from softctm.model import load_model
from softctm.points import CellPoints, DetectedCells

HAND_SET = Path(__file__).parents[1] / "hand_set"
REACH = 20
"""Pixels that an answer depends on, around the pixel."""


class FakeDetector:
    """Deterministic, and quick. `calls` counts what it was asked."""

    device, notice, seconds_in_networks, callers, views = "cpu", None, 0.0, 2, 8

    def __init__(self) -> None:
        self.model = load_model(HAND_SET)
        self.seconds: dict[str, float] = {}
        self.calls = {"tissue": 0, "cells": 0}

    def tissue_map(self, image):
        assert image.shape == (1024, 1024, 3)
        assert image.dtype == np.uint8
        self.calls["tissue"] += 1
        darkness = 1 - image.mean(axis=-1, dtype=np.float32) / 255
        cancer = ndimage.gaussian_filter(darkness, 5, mode="nearest", truncate=4).clip(0, 1)
        return np.stack((1 - cancer, cancer))

    def find_cells(self, image, context):
        assert image.shape == (1024, 1024, 3)
        assert context.shape == (2, 256, 256)
        assert context.dtype == np.float32
        self.calls["cells"] += 1
        foreground = 1 - image[..., 0].astype(np.float32) / 255
        blurred = ndimage.gaussian_filter(foreground, 3, mode="mirror", truncate=4)
        peaks = (blurred == ndimage.maximum_filter(blurred, 7)) & (blurred > 0.3)
        y, x = np.nonzero(peaks)
        tumor = context[1, y // 4, x // 4] > 0.35
        score = blurred[y, x]
        other = (1 - score) / 2
        probability = np.stack((other, np.where(tumor, other, score), np.where(tumor, score, other)), axis=1)
        points = CellPoints(
            x.astype(np.int32), y.astype(np.int32), (1 + tumor).astype(np.uint8), score.astype(np.float32)
        )
        return DetectedCells(points, probability.astype(np.float32), score.astype(np.float32))
