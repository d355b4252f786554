"""Run work in threads and return results in order; consume an iterable in its own thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

#: The timeout in seconds to stop a feeder. A feeder that waits for stdin does not stop, which is harmless.
_STOP_TIMEOUT = 0.5


def map_in_order(jobs: int, work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Generator[_Result, None, None]:
    """Yield `work(item)` for all items, in order, from `jobs` threads. Reads only a few items ahead.

    Close the generator to stop early.
    """
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class Feeder(Generic[_Item]):
    """Consume items in a separate thread, with a maximum number of items in progress."""

    def __init__(self, items: Iterable[_Item], room: int, notify: Callable[[], None]) -> None:
        """Start the thread.

        Args:
            items: The items. Iteration may block.
            room: The maximum number of items in progress: consumed, but not yet released by `make_room`.
            notify: A function that the thread calls after each item, and at the end.
        """
        self._items = items
        self._happened = notify
        self._ready: SimpleQueue[_Item | BaseException] = SimpleQueue()
        self._room = threading.Semaphore(room)
        self._stopped = threading.Event()
        self._ended = threading.Event()
        # A daemon, because nothing can stop a thread that waits for stdin.
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """True if all items were taken and no more will come."""
        return self._ended.is_set() and self._ready.empty()

    def take(self) -> _Item | BaseException | None:
        """Return the next item, or None if none is ready. An exception of `items` is returned as the last item."""
        try:
            return self._ready.get_nowait()
        except Empty:
            return None

    def make_room(self) -> None:
        self._room.release()

    def stop(self) -> None:
        self._stopped.set()
        self._room.release()
        # A thread that still runs at interpreter shutdown may abort the process (SIGABRT).
        self._thread.join(timeout=_STOP_TIMEOUT)

    def _run(self) -> None:
        try:
            for item in self._items:
                self._room.acquire()
                if self._stopped.is_set():
                    return
                self._ready.put(item)
                self._happened()
        except BaseException as error:  # `take` returns it
            self._ready.put(error)
        finally:
            self._ended.set()
            self._happened()
