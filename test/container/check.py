"""Check a `cell_classification.json`: against Grand Challenge's schema, then against the expected points.

    python check.py RESULT SCHEMA [EXPECTED]

`./test.sh` runs it inside the image, so that a user needs nothing but docker. Prints one line; exits with 1
where the result is wrong. Another processor or a GPU rounds otherwise, so a peak may move to the next pixel,
and of points near a threshold a few may come or go.
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
    try:
        document = json.loads(result.read_text())
        jsonschema.validate(document, json.loads(schema.read_text()))
    except (OSError, ValueError, jsonschema.ValidationError) as error:
        print(f"FAILED: {result.name}: {str(error).splitlines()[0]}")
        return 1
    points = points_of(document)
    labels = Counter(label for _, label, _, _ in points)
    images = len({image for image, _, _, _ in points})
    text = f"{len(points)} cells ({labels[2]} TC, {labels[1]} BC) in {images} pairs, valid against the schema"
    good = True
    if expected:
        agreement, good = compare(points, points_of(json.loads(expected[0].read_text())))
        text += f"; {agreement}"
    print(f"{'passed' if good else 'FAILED'}: {text}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
