"""Windows at the same time on a CPU: one thread computes each window, instead of all threads one window after the other.

torch divides each operation between its threads and waits at its end for the slowest: some 150 waits for a window of B/14. Where
another program uses one of the cores, each wait is for the thread that shares it. A window that one thread computes has no such
waits. `tests/benchmarks/encoder.py` measures it; the numbers are in `tests/benchmarks/README.md`.

The number of threads that share a product may change how it adds up, and labels must not depend on what else a run does. So the
number of threads for a window follows from the number of windows of its image alone, see `Workers.map`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Held while a worker changes its number of threads.
_CHANGING = threading.Lock()


class StoppedError(Exception):
    """Nobody waits for what a worker computes."""


class Workers:
    """Python threads that compute at the same time, each with its share of torch's threads. One caller at a time."""

    def __init__(self) -> None:
        count = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(max(count, os.cpu_count() or 1), thread_name_prefix="window")
        self._stopping = threading.Event()
        self._worker = threading.local()
        if count > 1 and _can_divide_threads():
            # All of them now, before anything else computes, see `_take_threads`.
            together = threading.Barrier(count)
            wait([self._pool.submit(self._run, together.wait, 1) for _ in range(count)])

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Do work for the items of one image, with all threads that torch has for the caller.

        As many items as there are threads, or a multiple of that, get one thread each. The others divide the threads equally; a
        single one gets them all and is computed in the caller's thread. For example, with 5 items and 4 threads, 4 items get one
        thread each, and then the fifth gets 4.

        Args:
            work: It may call `check`.
            items: All items of one image.

        Returns:
            The results, in the order of the items.

        Raises:
            Exception: The first error of `work`. No worker computes any more then; this holds for KeyboardInterrupt too.
        """
        threads = torch.get_num_threads() if _can_divide_threads() else 1
        if threads == 1:
            return [work(item) for item in items]
        full = len(items) - len(items) % threads
        results = self._compute(work, items[:full], 1)
        others = items[full:]
        if len(others) == 1:
            return [*results, work(others[0])]
        return [*results, *self._compute(work, others, threads // max(len(others), 1))]

    def check(self) -> None:
        """Raise StoppedError where the caller of `map` does not wait for results any more."""
        if self._stopping.is_set():
            raise StoppedError

    def _compute(self, work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
        self._stopping.clear()
        begun = [self._pool.submit(self._run, partial(work, item), threads) for item in items]
        try:
            return [each.result() for each in begun]
        except BaseException:
            self._stopping.set()
            for each in begun:
                each.cancel()
            wait(begun)
            self._stopping.clear()
            raise

    def _run(self, work: Callable[[], Result], threads: int) -> Result:
        if getattr(self._worker, "threads", 0) != threads:
            _take_threads(threads)
            self._worker.threads = threads
        return work()


@cache
def _can_divide_threads() -> bool:
    """Whether each Python thread can have its own number of torch's threads, which is so with OpenMP."""
    return "backend: OpenMP" in torch.__config__.parallel_info()


def _take_threads(count: int) -> None:
    """Set the number of torch's threads for the current thread.

    torch keeps the number for threads that start later too. A thread that ends at once puts that number back.
    """
    torch.get_num_threads()  # the first call in a thread gives it the number that torch keeps, whatever was set before
    with _CHANGING:
        before = _in_new_thread(torch.get_num_threads)
        torch.set_num_threads(count)
        _in_new_thread(partial(torch.set_num_threads, before))


def _in_new_thread(work: Callable[[], Result]) -> Result:
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]
