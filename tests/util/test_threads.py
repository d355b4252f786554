"""Work in threads: results in the order of the items, few of them at a time, and an end where nobody wants more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from threading import Barrier
from time import sleep

import pytest

from tipsseg.util.threads import map_in_order


@pytest.mark.parametrize("jobs", [1, 2, 5])
@pytest.mark.parametrize("number", [0, 1, 3, 40])
def test_results_come_in_the_order_of_the_items(jobs: int, number: int) -> None:
    assert list(map_in_order(jobs, str, range(number))) == list(map(str, range(number)))


def test_as_many_work_as_are_asked_for() -> None:
    meeting = Barrier(3)
    assert sorted(map_in_order(3, lambda _: meeting.wait(10), range(3))) == [0, 1, 2]


def test_few_items_are_taken_before_they_are_wanted() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while taken < 100:
            taken += 1
            yield taken

    with closing(map_in_order(2, int, items())) as results:
        for result in results:
            assert result <= taken <= min(result + 4, 100)
            assert taken >= min(result + 2, 100)  # so that the threads have something to do meanwhile


def test_closing_cancels_waiting_work() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        sleep(0.05 * (item > 0))
        return item

    with closing(map_in_order(1, work, range(100))) as results:
        assert next(results) == 0
    assert len(begun) <= 2  # the end waits for what is at work


def test_an_error_ends_the_threads() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(2, lambda item: 1 // item, [1, 2, 0, 3]))
