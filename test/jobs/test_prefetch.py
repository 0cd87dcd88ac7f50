"""Reading ahead: in order, one item ahead and no more, failures handed on, stopped when closed."""

from __future__ import annotations

import threading
import time

import pytest

from softctm.jobs.prefetch import read_ahead

NAMES = ["a", "b", "c", "d", "e"]


def test_items_come_in_order_and_failures_where_they_belong() -> None:
    def read(index: int) -> str:
        if index == 2:
            raise OSError("gone")
        return NAMES[index].upper()

    given = dict(read_ahead(NAMES, read))
    assert list(given) == NAMES
    assert [given[name].result() for name in "abde"] == ["A", "B", "D", "E"]
    with pytest.raises(OSError, match="gone"):
        given["c"].result()


def test_one_item_is_read_ahead_and_no_more() -> None:
    begun: list[int] = []

    def read(index: int) -> int:
        begun.append(index)
        return index

    for number, _ in enumerate(read_ahead(NAMES, read)):
        deadline = time.monotonic() + 10
        while len(begun) < min(number + 2, len(NAMES)) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)  # for one too many to begin
        assert begun == list(range(min(number + 2, len(NAMES))))


def test_closing_stops_the_reading() -> None:
    threads = set()

    def read(index: int) -> int:
        threads.add(threading.current_thread())
        return index

    items = read_ahead(NAMES, read)
    next(items)
    items.close()
    (thread,) = threads
    thread.join(10)
    assert not thread.is_alive()


def test_nothing_to_read() -> None:
    assert list(read_ahead([], lambda index: index)) == []
