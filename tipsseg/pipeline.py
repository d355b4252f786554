"""Many images: decoding ahead in threads, labelling in order, and going on after a bad image."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from tipsseg.errors import ImageError
from tipsseg.outcome import Failed, Item, Outcome, Unchanged
from tipsseg.records import ImageRef
from tipsseg.work import ImageWork, Loaded

#: Seconds that a feeder gets to end; one that waits for stdin does not, and is harmless.
_GRACE = 0.5


def label_images(items: Iterable[Item], work: ImageWork, jobs: int) -> Generator[Outcome, None, None]:
    """What becomes of each image, in the order of `items`; `jobs` threads decode ahead.

    `items` is gone through in a thread of its own and may come slowly: what has come is done, not held up for more. At most `jobs`
    images are in memory ahead of the one in use. An image that cannot be read, or that a writer cannot take, is a Failed; other
    errors are raised.
    """
    for item in _load_ahead(items, work, jobs):
        if not isinstance(item, _Loading):
            yield item
            continue
        outcome: Outcome
        try:
            outcome = work.finish(item.loaded.result())
        except ImageError as error:
            outcome = Failed(item.ref, error)
        yield outcome


@dataclass(frozen=True, slots=True)
class _Loading:
    """An image that a thread is reading."""

    ref: ImageRef
    loaded: Future[Loaded]


def _load_ahead(items: Iterable[Item], work: ImageWork, jobs: int) -> Iterator[_Loading | Unchanged | Failed]:
    """The items in their order, each image with its pixels on their way."""
    ready: SimpleQueue[_Loading | Unchanged | Failed | BaseException | None] = SimpleQueue()
    room = threading.Semaphore(jobs)
    stopped = threading.Event()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="decode")

    def feed() -> None:
        try:
            for item in items:
                room.acquire()
                if stopped.is_set():
                    return
                ready.put(_Loading(item, pool.submit(work.load, item)) if isinstance(item, ImageRef) else item)
            ready.put(None)
        except BaseException as error:  # whatever it is, it belongs to who asked for the images
            ready.put(error)

    # A daemon, as nothing ends a thread that waits for a line on stdin.
    feeder = threading.Thread(target=feed, name="feed", daemon=True)
    feeder.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item
    finally:
        stopped.set()
        room.release()  # lets a feeder go that waits for room
        pool.shutdown(wait=False, cancel_futures=True)
        # One that was let go and still runs while the interpreter ends brings the process down (SIGABRT).
        feeder.join(timeout=_GRACE)
