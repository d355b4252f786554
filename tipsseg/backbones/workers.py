"""Parts of the work of a tower at the same time on a CPU: each thread computes its own, instead of all threads one after the other.

torch divides each operation between its threads and waits at its end for the slowest: some 150 waits for a window of B/14. Where
another program uses one of the cores, each wait is for the thread that shares it. A window that one thread computes has no such
waits; where there are fewer windows than threads, `TowerInference` divides each into parts that wait for each other twice a block.
`tests/benchmarks/encoder.py` measures it; the numbers are in `tests/benchmarks/README.md`.

The number of threads that share a product may change how it adds up, and labels must not depend on what else a run does. So the
number of threads for a window, and its parts, follow from the number of windows of its image alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
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
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(max(threads, os.cpu_count() or 1), thread_name_prefix="window")
        self._stopping = threading.Event()
        self._worker = threading.local()
        if threads > 1 and _can_divide_threads():
            # All of them now, before anything else computes, see `_take_threads`.
            together = threading.Barrier(threads)
            wait([self._pool.submit(self._run, together.wait, 1) for _ in range(threads)])

    @property
    def count(self) -> int:
        """The threads that torch has for the caller; 1 for a worker, and if they cannot be divided."""
        return 1 if hasattr(self._worker, "threads") or not _can_divide_threads() else torch.get_num_threads()

    def map(self, work: Callable[[Item], Result], items: Sequence[Item], at_once: int) -> list[Result]:
        """Do work for items, some of them at the same time: a worker that is done takes the next item.

        Args:
            work: It may call `check`.
            items: The items.
            at_once: How many at the same time; they divide the threads of torch equally. 1: in the caller's thread, which has all.

        Returns:
            The results, in the order of the items.

        Raises:
            Exception: An error of `work`. No worker computes any more then; this holds for KeyboardInterrupt too.
        """
        if at_once == 1:
            return [work(item) for item in items]
        results: dict[int, Result] = {}
        places = count()  # one step of it is not divided by Python's threads

        def take_items() -> None:
            while (place := next(places)) < len(items):
                self.check()
                results[place] = work(items[place])

        self._compute(take_items, min(at_once, len(items)), self.count // at_once)
        return [results[place] for place in range(len(items))]

    def check(self) -> None:
        """Raise StoppedError if the caller of `map` does not wait for results any more."""
        if self._stopping.is_set():
            raise StoppedError

    def _compute(self, work: Callable[[], None], workers: int, threads: int) -> None:
        """Do the same in so many workers at once, each with so many threads of torch."""
        begun = [self._pool.submit(self._run, work, threads) for _ in range(workers)]
        try:
            for ended in as_completed(begun):
                ended.result()
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
    """Tell whether each Python thread can have its own number of torch's threads, which is so with OpenMP."""
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


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Let torch have so many threads, for what the current thread computes inside; others keep theirs."""
    before = torch.get_num_threads()
    _take_threads(count)
    try:
        yield
    finally:
        _take_threads(before)


def _in_new_thread(work: Callable[[], Result]) -> Result:
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]
