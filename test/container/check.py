"""Check a `cell_classification.json`: by Grand Challenge's schema and the challenge's rules, then the points.

    python check.py RESULT SCHEMA [EXPECTED]

`./test.sh` runs it inside the image, so that a user needs nothing but docker. Prints one line; exits with 1
where the result is wrong. How many pairs there were is read from `run.json` beside it. Another processor or a
GPU rounds otherwise, so a peak may move to the next pixel, and a few points near a threshold may come or go.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema

SHIFT = 1
"""Largest allowed shift of a point along x and y, pixels (0.2 µm). Points are at least 3 px apart."""

SCORE_DIFFERENCE = 0.02
"""Largest allowed difference of a point's probability."""

MISMATCHES = 0.01
"""Largest allowed share of points that are missing, added or of the other class."""

Points = dict[tuple[str, int, int, int], float]


def points_of(document: Any) -> Points:
    """Points by (image, class, x, y), with their probabilities."""
    return {
        (point["name"], point["point"][2], point["point"][0], point["point"][1]): point["probability"]
        for point in document["points"]
    }


def fault_of(document: Any) -> str | None:
    """What the challenge does not allow though the schema does; None where there is nothing."""
    seen = set()
    for point in document["points"]:
        x, y, label = point["point"]
        inside = all(isinstance(value, int) and 0 <= value <= 1023 for value in (x, y))
        if not inside or label not in (1, 2) or not {"name", "probability"} <= point.keys():
            return f"{point} is not a named point of 0 … 1023, class 1 or 2, with its probability"
        if (point["name"], x, y) in seen:
            return f"two cells of {point['name']} at {x}, {y}"
        seen.add((point["name"], x, y))
    return None


def pairs_in(record: Any) -> str:
    """How many pairs were done, of how many, by `run.json`: those without cells have no points."""
    done, count = sum("tumor_cells" in pair for pair in record["pairs"]), len(record["pairs"])
    return f"{'' if done == count else f'{done} of '}{count} pair{'' if count == 1 else 's'}"


def compare(found: Points, expected: Points) -> tuple[str, bool]:
    """Say how well the found points agree with the expected ones, and whether that is well enough."""
    differences: list[float] = []
    for (image, label, x, y), score in expected.items():
        near = [
            found[image, label, x + dx, y + dy]
            for dx in range(-SHIFT, SHIFT + 1)
            for dy in range(-SHIFT, SHIFT + 1)
            if (image, label, x + dx, y + dy) in found
        ]
        if near:
            differences.append(min(abs(score - other) for other in near))
    missing, added = len(expected) - len(differences), len(found) - len(differences)
    largest = max(differences, default=0.0)
    text = (
        f"{len(differences)} of {len(expected)} expected points found, {added} others, "
        f"largest score difference {largest:.4f}"
    )
    good = missing + max(added, 0) <= MISMATCHES * len(expected) and largest <= SCORE_DIFFERENCE
    return text, good


def main(arguments: list[str]) -> int:
    result, schema, *expected = (Path(argument) for argument in arguments)
    file = result
    try:
        document = json.loads(result.read_text())
        jsonschema.validate(document, json.loads(schema.read_text()))
        if fault := fault_of(document):
            raise ValueError(fault)
        file = result.with_name("run.json")
        pairs = pairs_in(json.loads(file.read_text()))
    except (OSError, ValueError, LookupError, TypeError, jsonschema.ValidationError) as error:
        print(f"FAILED: {file.name}: {(str(error) or repr(error)).splitlines()[0]}")
        return 1
    points = points_of(document)
    labels = Counter(label for _, label, _, _ in points)
    text = f"{len(points)} cells ({labels[2]} TC, {labels[1]} BC) in {pairs}, valid against the schema"
    good = True
    if expected:
        agreement, good = compare(points, points_of(json.loads(expected[0].read_text())))
        text += f"; {agreement}"
    print(f"{'passed' if good else 'FAILED'}: {text}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
