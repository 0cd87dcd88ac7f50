"""Seconds, memory and cells of one way on one slide, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import host_memory_peak
from benchmarks.slides.overlapping import overlapping_way
from softctm.inference.detector import Detector
from softctm.jobs.slides.cohort import run_cohort
from softctm.jobs.slides.engine import load_slide_detector
from softctm.jobs.slides.options import SlideOptions
from softctm.slides import open_slide

WAYS = ("overlapping", "softctm")


def measured(way: str, slide: Path, **options: Any) -> dict[str, Any]:
    """Run one way in a new process; its JSON line comes last."""
    command = [sys.executable, "-m", "benchmarks.slides", "one", way, str(slide)]
    command += [f"--{name}={value}" for name, value in options.items() if value is not None]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return result


def one(way: str, path: Path, options: SlideOptions) -> dict[str, Any]:
    """Do a slide one way in this process."""
    start = time.perf_counter()
    with open_slide(path) as slide:
        area = slide.width_um * slide.height_um / 1e6
        if way == "overlapping":
            detector = load_slide_detector(options.for_this_machine())
            assert isinstance(detector, Detector)
            found = overlapping_way(slide, detector)
    if way != "overlapping":
        with tempfile.TemporaryDirectory() as folder:
            record = run_cohort([path], Path(folder), options).rows[0].record
        assert record is not None
        seconds = record["seconds"]
        found = {
            "seconds": seconds["total"],
            "networks": seconds["networks"] / (options.workers or 1),
            "cells": record["background_cells"] + record["tumor_cells"],
            "stages": seconds,
            "tissue_mm2": record["tissue_mm2"],
        }
    whole = time.perf_counter() - start
    return {"way": way, "mm2": area, "peak_mb": host_memory_peak(), "with_start": whole, **found}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| way | mm² | seconds | seconds per mm² | in networks | peak memory, MB | cells reported |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row['way']} | {row['mm2']:.2f} | {row['seconds']:.1f} | {row['seconds'] / row['mm2']:.2f} "
            f"| {100 * row['networks'] / row['seconds']:.0f} % | {row['peak_mb']} | {row['cells']} |"
        )
    return "\n".join(lines)
