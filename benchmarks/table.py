"""What was measured, as rows for JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.timing import Measurement, Way
from softctm.ort.runtime import Device

_HEAD = (
    "pairs",
    "way",
    "views",
    "precision",
    "s per pair",
    "times baseline",
    "without peaks",
    "in networks",
    "of peak",
    "maps differ by",
    "same cells",
    "class flips",
    "score off by",
)


def rows_of(
    measured: Mapping[Way, Measurement],
    differences: Mapping[Way, float],
    operations: int,
    rates: Mapping[Any, Mapping[str, float]],
    device: Device,
) -> list[dict[str, Any]]:
    """One row a way; ratios are to the first one.

    Parameters
    ----------
    measured : mapping
        From `take_turns`.
    differences : mapping
        From `warm_up`.
    operations : int
        Multiplications and additions of one view of a pair through all networks.
    rates : mapping
        From `best_rates`, for each arithmetic that a way uses.
    """
    baseline = next(iter(measured.values()))
    rows = []
    for way, measurement in measured.items():
        seconds = measurement.seconds_a_pair
        without = measurement.seconds - measurement.seconds_in_peaks
        best = max(rates[way.arithmetic(device)].values())
        rows.append(
            {
                **asdict(way),
                **asdict(measurement),
                "seconds_a_pair": seconds,
                "times_baseline": baseline.seconds_a_pair / seconds,
                "times_baseline_without_peaks": (baseline.seconds - baseline.seconds_in_peaks) / without,
                "share_in_networks": measurement.seconds_in_networks / measurement.seconds,
                "share_of_machine_peak": operations * way.views / seconds / best,
                "largest_map_difference": differences[way],
                "same_cells": measurement.agreement.share,
            }
        )
    return rows


def table(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    networks, runs = report["networks"], report["runs"]
    lines = [
        f"Model {report['model']}, {networks['tissue']} tissue and {networks['cells']} cell networks, "
        f"{sum(report['operations_a_view'].values()) / 1e9:.0f} GFLOP a view; {report['device']}, "
        f"{report['processors']} processors, ONNX Runtime {report['onnxruntime']}.",
        "Machine's measured peak: " + "; ".join(_rates(report["machine_operations_a_second"])) + ".",
        "",
        "| " + " | ".join(_HEAD) + " |",
        "| " + " | ".join("---" for _ in _HEAD) + " |",
    ]
    for run in runs:
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in run["ways"]]
    memory = [
        f"{way} {megabytes['host']} MB host, {_megabytes(megabytes['device'])} device"
        for way, megabytes in report["peak_memory_mb"].items()
    ]
    estimate = ", ".join(f"{mb} MB ({kind})" for kind, mb in report["estimated_device_memory_mb"].items())
    return "\n".join(
        [
            *lines,
            "",
            "Maps are compared on the first pair.",
            f"Peak memory of a process that does one pair: {'; '.join(memory)}.",
            f"Estimated device memory, 8 views a batch, without the libraries' own: {estimate}.",
        ]
    )


def _rates(rates: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        f"{arithmetic} {best['matrix_product'] / 1e9:.0f} (matrix product) and "
        f"{best['convolution'] / 1e9:.0f} (convolution) GFLOP/s"
        for arithmetic, best in rates.items()
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["pairs"]),
        row["name"],
        str(row["views"]),
        row["precision"],
        f"{row['seconds_a_pair']:.3g}",
        f"{row['times_baseline']:.2f}",
        f"{row['times_baseline_without_peaks']:.2f}",
        f"{row['share_in_networks']:.1%}",
        f"{row['share_of_machine_peak']:.0%}",
        f"{row['largest_map_difference']:.1g}",
        f"{row['same_cells']:.2%}",
        str(row["agreement"]["class_flips"]),
        f"{row['agreement']['largest_score_difference']:.1g}",
    ]


def _megabytes(value: int | None) -> str:
    return "none" if value is None else f"{value} MB"
