"""How long the stages of some work take."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

_adding = threading.Lock()


@contextmanager
def timed(seconds: MutableMapping[str, float], stage: str) -> Iterator[None]:
    """Add the block's wall time to a stage, even if it fails; threads add up what each of them took."""
    start = time.perf_counter()
    try:
        yield
    finally:
        add_seconds(seconds, stage, time.perf_counter() - start)


def add_seconds(seconds: MutableMapping[str, float], stage: str, spent: float) -> None:
    """Add a time to a stage, from whichever thread."""
    with _adding:
        seconds[stage] = seconds.get(stage, 0.0) + spent
