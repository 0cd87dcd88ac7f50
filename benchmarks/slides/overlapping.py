"""The overlapping way to do a slide, to compare with: windows at half their size, sums of the whole slide."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from softctm.inference.detector import Detector
from softctm.pair import CELL_MPP, PATCH_SIZE, TISSUE_MPP, WINDOW_SIZE
from softctm.slides.slide import Slide

STRIDE = PATCH_SIZE // 2


def overlapping_way(slide: Slide, detector: Detector) -> dict[str, Any]:
    """Every 512 pixels a window of 1024; probabilities are summed and counted for the whole slide in memory.

    Tissue is seen the same way, so that both ways' cell networks get the same.

    Returns
    -------
    dict
        Seconds in all and in networks, and how often cells were reported.
    """
    start, reported = time.perf_counter(), 0
    width, height = slide.size_at(TISSUE_MPP)
    tissue = np.zeros((len(detector.model.tissue.head.classes), height + 2048, width + 2048), np.float32)
    seen = np.zeros(tissue.shape[1:], np.uint8)
    for y in range(0, height, STRIDE):
        for x in range(0, width, STRIDE):
            image = slide.read(x, y, PATCH_SIZE, PATCH_SIZE, TISSUE_MPP)
            tissue[:, y : y + PATCH_SIZE, x : x + PATCH_SIZE] += detector.tissue_map(image)
            seen[y : y + PATCH_SIZE, x : x + PATCH_SIZE] += 1
    tissue /= np.maximum(seen, 1)
    width, height = slide.size_at(CELL_MPP)
    whole = slide.read(0, 0, width + PATCH_SIZE, height + PATCH_SIZE, CELL_MPP)
    total = np.zeros((3, *whole.shape[:2]), np.float32)
    count = np.zeros(whole.shape[:2], np.uint8)
    for y in range(0, height, STRIDE):
        for x in range(0, width, STRIDE):
            image = np.ascontiguousarray(whole[y : y + PATCH_SIZE, x : x + PATCH_SIZE])
            left, top = x // 4, y // 4
            context = tissue[:, top : top + WINDOW_SIZE, left : left + WINDOW_SIZE]
            value = detector._runtime.value(np.ascontiguousarray(context)[None])
            cells = detector._cells_of(image, value, 0, 0)
            reported += len(detector._points_in(cells).points)
            total[:, y : y + PATCH_SIZE, x : x + PATCH_SIZE] += cells.numpy()[0]
            count[y : y + PATCH_SIZE, x : x + PATCH_SIZE] += 1
    total /= np.maximum(count, 1)
    return {
        "seconds": time.perf_counter() - start,
        "networks": detector.seconds_in_networks,
        "cells": reported,
    }
