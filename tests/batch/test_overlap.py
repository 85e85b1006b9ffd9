"""Several products at a time: results in order, never more than allowed, and the same bytes as one after another."""

from __future__ import annotations

import threading
import time

import pytest

from lazyccd.batch.overlap import in_order


@pytest.mark.parametrize("width", [1, 2, 5])
def test_results_come_in_order_and_few_run_at_a_time(width: int) -> None:
    """Works that end in another order give their results in theirs; no more than allowed run."""
    running, most, lock = 0, 0, threading.Lock()

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 * (7 * number % 5))
        with lock:
            running -= 1
        return number

    works = (lambda number=number: work(number) for number in range(20))
    assert list(in_order(works, width)) == list(range(20))
    assert most <= width
    assert (most > 1) == (width > 1)


def test_an_error_comes_where_the_result_would_be() -> None:
    """What came before an error is there, what has begun ends, and nothing else is begun."""
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    results = in_order((lambda number=number: work(number) for number in range(50)), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(begun) <= 6
