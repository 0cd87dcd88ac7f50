"""Names of files and of entries: in which order, and which of them twice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable


def natural_order(name: str) -> list[tuple[int, str]]:
    """A key for `sorted`, 2 before 10: digits count as the number that they spell."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def repeated(names: Iterable[str]) -> list[str]:
    """Names that occur more than once, each once, in the order in which they come."""
    return [name for name, count in Counter(names).items() if count > 1]
