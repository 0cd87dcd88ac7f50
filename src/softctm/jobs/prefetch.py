"""Read the next pair in a thread while this one is used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")


def read_ahead(
    names: Sequence[str], read: Callable[[int], _Item]
) -> Generator[tuple[str, Future[_Item]], None, None]:
    """Each item's name and its reading, which may have failed; the next one has begun by then.

    A name is given out once its item is read, so that no third item is ever in memory. Closing the
    generator stops the reading.

    Parameters
    ----------
    names : sequence of str
    read : callable
        From an item's place among `names` to the item; called in a thread of its own, in order.
    """
    if not names:
        return
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read")
    try:
        following = executor.submit(read, 0)
        for index, name in enumerate(names):
            current = following
            current.exception()  # waits
            if index + 1 < len(names):
                following = executor.submit(read, index + 1)
            yield name, current
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
