"""Doing a few things side by side in threads, all of which end soon once one of them fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(items: Sequence[_Item], work: Callable[[_Item, threading.Event], _Result]) -> list[_Result]:
    """`work(item, stop)` of every item, a thread each; the results in the items' order.

    `stop` is set once one of them fails, or this thread is interrupted: the others should look at it often
    and raise InterruptedError. The first failure is raised.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(len(items)) as pool:
        running = [pool.submit(work, item, stop) for item in items]
        try:
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
            for ended in done:
                ended.result()
            return [ended.result() for ended in running]
        finally:
            stop.set()
