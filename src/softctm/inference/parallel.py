"""Doing a few things side by side in threads: all at once, or a stream of them in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
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


def in_order(
    items: Iterable[_Item], work: Callable[[_Item], _Result], threads: int, name: str
) -> Generator[_Result, None, None]:
    """`work(item)` of each item in turn, worked on by some threads, in the items' order.

    One item more than there are threads is taken before the first result is given out, so that no thread
    waits for the caller. A failure is raised in its item's place; what comes after it is not begun.

    Parameters
    ----------
    items : iterable
        Taken by the calling thread, as late as possible.
    work : callable
    threads : int
    name : str
        Of the threads.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
