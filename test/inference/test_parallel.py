"""A stream of work in threads: in order, side by side, a few items ahead, failures in their place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from softctm.inference.parallel import in_order


def test_results_keep_the_order_of_the_items_whatever_their_time() -> None:
    def work(number: int) -> int:
        time.sleep(0.02 if number % 2 == 0 else 0)
        return number**2

    assert list(in_order(range(7), work, 3, "square")) == [0, 1, 4, 9, 16, 25, 36]
    assert list(in_order([], work, 3, "square")) == []


def test_threads_work_side_by_side() -> None:
    together = threading.Barrier(2)  # breaks unless two are in it at once
    assert list(in_order(range(4), lambda number: together.wait(10) >= 0, 2, "meet")) == [True] * 4


def test_no_more_than_one_item_waits_for_a_thread() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(9):
            taken.append(number)
            yield number

    results = in_order(items(), str, 2, "work")
    assert next(results) == "0"
    assert taken == [0, 1, 2]
    results.close()
    assert taken == [0, 1, 2]


def test_a_failure_comes_in_its_place_and_ends_the_stream() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise OSError("gone")
        return number

    results = in_order(range(100), work, 1, "work")
    assert next(results) == 0
    with pytest.raises(OSError, match="gone"):
        next(results)
    assert max(begun) < 4
