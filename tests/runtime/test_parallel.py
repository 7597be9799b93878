from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from stages.runtime.parallel import in_order, n_cores


def test_results_come_in_the_order_of_the_items() -> None:
    def slow(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * item

    assert list(in_order(slow, range(50), n_threads=4)) == [i * i for i in range(50)]
    assert list(in_order(slow, [], n_threads=4)) == []


def test_items_are_taken_no_faster_than_results_are_asked_for() -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    results = in_order(lambda item: item, items(), n_threads=2)
    next(results)
    assert len(taken) <= 6


def test_functions_run_side_by_side() -> None:
    both = threading.Barrier(2, timeout=10)
    assert sorted(in_order(lambda _: both.wait(), range(2), n_threads=2)) == [0, 1]


def test_a_fault_is_raised_where_results_are_taken() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda item: 1 // item, [1, 0, 1], n_threads=2))


def test_there_is_a_core() -> None:
    assert n_cores() >= 1
