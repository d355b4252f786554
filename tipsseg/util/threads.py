"""Run work in several threads, with results in the order of the items; take items as they come, in a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

#: Seconds that a feeder gets to end; one that waits for stdin does not, and is harmless.
_GRACE = 0.5


def in_order(jobs: int, work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Generator[_Result, None, None]:
    """Do `work` for each item, in `jobs` threads; a few items at a time are taken. Close it if not all are wanted."""
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
    """Take items as they come, in a thread of its own, as long as there is room for them."""

    def __init__(self, items: Iterable[_Item], room: int, happened: Callable[[], None]) -> None:
        """Begin.

        Args:
            items: They may come slowly.
            room: How many items may be under way: given out, and no room made for them.
            happened: Is called in the thread when there is something to take, or the end is reached.
        """
        self._items = items
        self._happened = happened
        self._ready: SimpleQueue[_Item | BaseException] = SimpleQueue()
        self._room = threading.Semaphore(room)
        self._stopped = threading.Event()
        self._ended = threading.Event()
        # A daemon, as nothing ends a thread that waits for a line on stdin.
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether nothing is left to take and nothing more comes."""
        return self._ended.is_set() and self._ready.empty()

    def take(self) -> _Item | BaseException | None:
        """Return the next item, if it is here; an error takes the place of the rest."""
        try:
            return self._ready.get_nowait()
        except Empty:
            return None

    def make_room(self) -> None:
        self._room.release()

    def stop(self) -> None:
        self._stopped.set()
        self._room.release()
        # One that was let go and still runs while the interpreter ends brings the process down (SIGABRT).
        self._thread.join(timeout=_GRACE)

    def _run(self) -> None:
        try:
            for item in self._items:
                self._room.acquire()
                if self._stopped.is_set():
                    return
                self._ready.put(item)
                self._happened()
        except BaseException as error:  # it belongs to who asked for the items
            self._ready.put(error)
        finally:
            self._ended.set()
            self._happened()
