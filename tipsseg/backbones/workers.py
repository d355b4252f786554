"""Run parts of a tower's work in parallel on a CPU: one thread per part, instead of all threads on one part after another.

torch divides every operation between its threads and waits for the slowest at the end: about 150 waits per window of B/14. If
another program uses one of the cores, every wait is for the thread on that core. A window on a single thread has no such waits.
With fewer windows than threads, `TowerInference` divides a window into parts that wait for one another twice per block.
`tests/benchmarks/encoder.py` measures this; `tests/benchmarks/README.md` has the numbers.

The order of a sum may depend on the number of threads, and labels must not depend on the other images of a run. So the number of
threads and parts of a window depends only on the number of windows of its image.
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

_Item = TypeVar("_Item")
Result = TypeVar("Result")

#: Serializes changes to the number of torch threads.
_CHANGING = threading.Lock()


class StoppedError(Exception):
    """The caller no longer waits for the result of a worker."""


class Workers:
    """Python threads that compute in parallel, each with its share of torch's threads. One caller at a time."""

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(max(threads, os.cpu_count() or 1), thread_name_prefix="window")
        self._stopping = threading.Event()
        self._worker = threading.local()
        if threads > 1 and _can_divide_threads():
            # Set up all workers now, before other threads compute (see `_set_threads`).
            barrier = threading.Barrier(threads)
            wait([self._pool.submit(self._run, barrier.wait, 1) for _ in range(threads)])

    @property
    def count(self) -> int:
        """Number of torch threads for the caller; 1 for a worker, or if threads cannot be divided."""
        return 1 if hasattr(self._worker, "threads") or not _can_divide_threads() else torch.get_num_threads()

    def map(self, work: Callable[[_Item], Result], items: Sequence[_Item], at_once: int) -> list[Result]:
        """Apply `work` to items, several in parallel. A free worker takes the next item.

        Args:
            work: The function. It may call `check`.
            items: Its arguments.
            at_once: Number of parallel workers, which divide torch's threads equally. 1: only the caller's thread, with all
                torch threads.

        Returns:
            The results, in the order of the items.

        Raises:
            Exception: `work` raised an error. All workers have stopped by then, as after KeyboardInterrupt.
        """
        if at_once == 1:
            return [work(item) for item in items]
        results: dict[int, Result] = {}
        indices = count()  # `next` on it is atomic

        def work_on_items() -> None:
            while (index := next(indices)) < len(items):
                self.check()
                results[index] = work(items[index])

        self._compute(work_on_items, min(at_once, len(items)), self.count // at_once)
        return [results[index] for index in range(len(items))]

    def check(self) -> None:
        """Raise StoppedError if the caller of `map` no longer waits for results."""
        if self._stopping.is_set():
            raise StoppedError

    def _compute(self, work: Callable[[], None], workers: int, threads: int) -> None:
        """Run `work` in several workers, each with `threads` torch threads."""
        futures = [self._pool.submit(self._run, work, threads) for _ in range(workers)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            self._stopping.set()
            for future in futures:
                future.cancel()
            wait(futures)
            self._stopping.clear()
            raise

    def _run(self, work: Callable[[], Result], threads: int) -> Result:
        if getattr(self._worker, "threads", 0) != threads:
            _set_threads(threads)
            self._worker.threads = threads
        return work()


@cache
def _can_divide_threads() -> bool:
    """Return True if every Python thread can have its own number of torch threads, as with OpenMP."""
    return "backend: OpenMP" in torch.__config__.parallel_info()


def _set_threads(count: int) -> None:
    """Set the number of torch threads for the current thread.

    torch also stores the number as the default of threads that start later. A short-lived thread restores that default.
    """
    torch.get_num_threads()  # the first call in a thread resets that thread's number of threads to the default
    with _CHANGING:
        before = _in_new_thread(torch.get_num_threads)
        torch.set_num_threads(count)
        _in_new_thread(partial(torch.set_num_threads, before))


@contextmanager
def limit_torch_threads(count: int) -> Iterator[None]:
    """Limit torch to `count` threads in the current thread; other threads keep their number."""
    before = torch.get_num_threads()
    _set_threads(count)
    try:
        yield
    finally:
        _set_threads(before)


def _in_new_thread(work: Callable[[], Result]) -> Result:
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]
