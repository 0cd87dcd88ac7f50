"""Ways of finding the same cells, timed in turns, pair by pair, so that none has the quieter machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.agreement import Agreement
from benchmarks.baseline import Baseline
from softctm.choices import Precision
from softctm.inference.detector import Detector
from softctm.model import Model
from softctm.ort.runtime import Arithmetic, Device
from softctm.pair import CellTissuePair
from softctm.points import CellPoints
from softctm.readers import PairSource

Maps = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Probabilities of tissue and of cells, classes first."""


@dataclass(frozen=True)
class Way:
    """One way of doing the same.

    Attributes
    ----------
    name : str
        "baseline", "baseline, TF32" or "detector".
    views : int
    precision : "float32", "float16" or "int8"
    """

    name: str
    views: int
    precision: Precision = "float32"

    def __str__(self) -> str:
        return f"{self.name}, {self.views} views, {self.precision}"

    @property
    def is_baseline(self) -> bool:
        """Whether it is the way to compare with."""
        return self.name.startswith("baseline")

    def arithmetic(self, device: Device) -> Arithmetic:
        """What its networks compute in, on that device."""
        if device == "cpu" or self.precision == "int8":
            return "float32"
        return "exact" if self.name == "baseline" else self.precision

    def open(self, model: Model, device: Device) -> Detector | Baseline:
        """Load its networks."""
        if self.is_baseline:
            return Baseline(model, device=device, views=self.views, tf32="TF32" in self.name)
        return Detector(model.in_precision(self.precision), device=device, views=self.views)


@dataclass
class Measurement:
    """Totals over the pairs; seconds of wall time."""

    pairs: int = 0
    seconds: float = 0.0
    seconds_in_networks: float = 0.0
    seconds_in_peaks: float = 0.0
    agreement: Agreement = field(default_factory=Agreement)

    def add(self, seconds: float, in_networks: float, in_peaks: float) -> None:
        """Note one pair."""
        self.pairs += 1
        self.seconds += seconds
        self.seconds_in_networks += in_networks
        self.seconds_in_peaks += in_peaks

    @property
    def seconds_a_pair(self) -> float:
        """From reading a pair to its points."""
        return self.seconds / self.pairs


def warm_up(detectors: Mapping[Way, Any], pair: CellTissuePair) -> dict[Way, float]:
    """One pair each way, which pays for memory and for the choice of algorithms.

    Returns
    -------
    dict
        The largest difference of a probability, tissue or cells, from the first way's.
    """
    differences: dict[Way, float] = {}
    expected: Maps | None = None
    for way, detector in detectors.items():
        say(f"warming up: {way}")
        found = _maps(detector, pair)
        expected = expected or found
        differences[way] = max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
    return differences


def take_turns(detectors: Mapping[Way, Any], source: PairSource, count: int) -> dict[Way, Measurement]:
    """Time `count` pairs each way; agreement is with the first way's points.

    The baseline reads each pair when it comes to it. The detector does as its job does: while a pair
    computes, a thread reads the next one.
    """
    rows = {way: Measurement() for way in detectors}
    ahead: dict[Way, Future[CellTissuePair]] = {}

    def read(index: int) -> CellTissuePair:
        return source.read(index % len(source))

    with ThreadPoolExecutor(max_workers=1) as reader:
        for index in range(count):
            expected: CellPoints | None = None
            for way, detector in detectors.items():
                say(f"pair {index + 1} of {count}: {way}")
                networks, peaks = detector.seconds_in_networks, detector.seconds["peaks"]
                start = time.perf_counter()
                pair = ahead.pop(way).result() if way in ahead else read(index)
                if not way.is_baseline and index + 1 < count:
                    ahead[way] = reader.submit(read, index + 1)
                points = detector(pair)
                if way in ahead:
                    ahead[way].result()
                rows[way].add(
                    time.perf_counter() - start,
                    detector.seconds_in_networks - networks,
                    detector.seconds["peaks"] - peaks,
                )
                expected = points if expected is None else expected
                rows[way].agreement.add(expected, points)
    return rows


def say(line: str) -> None:
    """Show progress, apart from the result."""
    print(line, file=sys.stderr, flush=True)


def _maps(detector: Detector | Baseline, pair: CellTissuePair) -> Maps:
    if isinstance(detector, Baseline):
        detector(pair)
        return detector.maps
    prediction = detector.predict(pair, maps=True)
    assert prediction.tissue_probability is not None
    assert prediction.cell_probability is not None
    return prediction.tissue_probability, prediction.cell_probability
