"""Read, score and finish images, at the same time; results come in order, and a bad image does not end the run.

items ─ a thread ─► read, in threads ─► encode in batches and score, in the caller's thread ─► finish, in threads ─► results

Images that take long to reach are read ahead: files behind URLs, several at a time; frames of videos, in order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from tipsseg.errors import ImageError
from tipsseg.images.access import hold, needs_hold, release
from tipsseg.labelling.features import Batches, Features
from tipsseg.labelling.source import FeatureSource, Loaded, PendingRecord
from tipsseg.types import Failed, ImageRef
from tipsseg.util.threads import Feeder

#: After this time in seconds, look whether the device has something to do: it does not tell.
_DEVICE_WAIT = 0.001

_Scored = TypeVar("_Scored")
_Done = TypeVar("_Done")


@dataclass(frozen=True, slots=True, eq=False)
class _Image(Generic[_Done]):
    """An image on its way: as it is read, and its result."""

    ref: ImageRef
    loaded: Future[Loaded[Any]]
    result: Future[_Done | Failed]


def run_stages(
    items: Iterable[ImageRef | _Done | Failed],
    source: FeatureSource[Any],
    score: Callable[[Sequence[Any]], _Scored],
    finish: Callable[[Loaded[Any], _Scored], _Done],
    jobs: int,
) -> Generator[_Done | Failed, None, None]:
    """Read, score and finish images. Yield the results in order, and pass other items through.

    `items` may arrive slowly: an idle device gets a batch that is not full. Memory holds at most 2 * `jobs` images,
    plus the windows of a batch. An ImageError while reading or finishing yields a Failed; other errors are raised.

    Args:
        items: Images, and results of images that need no work.
        source: Reads and encodes images.
        score: Returns what `finish` needs from the features at all scales. Runs in the caller's thread.
        finish: Returns the result of an image. Runs in a thread; raises ImageError if this image fails.
        jobs: The number of threads.
    """
    stages = _Stages(source, score, finish, jobs)
    results: deque[Future[_Done | Failed]] = deque()
    ahead = ReadAhead(items)
    feed = Feeder(ahead, 2 * jobs + source.batch_size, stages.happened.set)
    broken: Exception | None = None  # the error that ends the run, once finished images are yielded
    try:
        while True:
            stages.happened.clear()
            while results and results[0].done():
                feed.make_room()
                yield results.popleft().result()
            if broken is not None:
                raise broken
            try:
                if stages.score_next():
                    continue
                if (item := feed.take()) is not None:
                    results.append(stages.read(item))
                    results[-1].add_done_callback(partial(ahead.release, item))
                elif stages.has_time():
                    stages.happened.wait(_DEVICE_WAIT)
                elif not stages.flush():
                    if not results and feed.ended:
                        return
                    stages.happened.wait()
            except Exception as error:
                broken = error
                stages.wait()
    finally:
        feed.stop()
        ahead.close()
        stages.stop()


class _Stages(Generic[_Scored, _Done]):
    """The three stages, between which images wait in order. `happened` is set whenever one of them may go on."""

    def __init__(
        self,
        source: FeatureSource[Any],
        score: Callable[[Sequence[Any]], _Scored],
        finish: Callable[[Loaded[Any], _Scored], _Done],
        jobs: int,
    ) -> None:
        self.happened = threading.Event()
        self._source, self._score, self._finish = source, score, finish
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="work")
        self._reading: deque[_Image[_Done]] = deque()
        self._batches: Batches[_Image[_Done]] = source.batches()
        self._finishing: set[Future[None]] = set()

    def read(self, item: ImageRef | _Done | Failed | BaseException) -> Future[_Done | Failed]:
        """Begin to read an image, and return a future of its result; a done future for an item that is a result or an error."""
        result: Future[_Done | Failed] = Future()
        result.add_done_callback(lambda _: self.happened.set())
        if isinstance(item, ImageRef):
            loaded = self._pool.submit(self._source.load, item)
            loaded.add_done_callback(lambda _: self.happened.set())
            self._reading.append(_Image(item, loaded, result))
        else:
            _settle(result, partial(_raised, item))
        return result

    def score_next(self) -> bool:
        """Encode the next image if it is read by now. Return False if it is not."""
        if not self._reading or not self._reading[0].loaded.done():
            return False
        image = self._reading.popleft()
        if (error := image.loaded.exception()) is not None:
            _settle(image.result, partial(_raised, error), image.ref)
        elif (missing := image.loaded.result().missing) is None:
            self._score_all([(image, None)])  # its features are stored
        else:
            self._score_all(self._batches.add(image, missing))
        return True

    def has_time(self) -> bool:
        """Return True if a batch that is not full can wait for more images, because the device has work."""
        return self._batches.has_time()

    def flush(self) -> bool:
        """Encode a batch that is not full. Return False if no image waits for it."""
        return self._score_all(self._batches.flush())

    def _score_all(self, encoded: Iterable[tuple[_Image[_Done], Features | None]]) -> bool:
        """Score images, and begin to finish them. Return False if there are none."""
        found = False
        for image, features in encoded:
            found, loaded = True, image.loaded.result()
            scales, unsaved = self._source.merge(loaded, features)
            # Score now, to free the features, which take the most memory, before the next model step.
            work = partial(self._save_and_finish, loaded, self._score(scales), unsaved)
            future = self._pool.submit(_settle, image.result, work, image.ref)
            self._finishing.add(future)
            future.add_done_callback(self._finishing.discard)
        return found

    def _save_and_finish(self, loaded: Loaded[Any], scored: _Scored, unsaved: Sequence[PendingRecord]) -> _Done:
        self._source.save(unsaved)
        return self._finish(loaded, scored)

    def wait(self) -> None:
        """Wait for the images that are being finished."""
        wait(set(self._finishing))

    def stop(self) -> None:
        """Wait for running writers, before another process may lock the folder, and drop the other work."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.wait()


def _settle(result: Future[_Done | Failed], work: Callable[[], _Done | Failed], ref: ImageRef | None = None) -> None:
    """Set a result to what `work` returns. An ImageError of image `ref` is a Failed; others are raised in the result's turn."""
    try:
        result.set_result(work())
    except ImageError as error:
        if ref is None:
            result.set_exception(error)
        else:
            result.set_result(Failed(ref, error))
    except BaseException as error:
        result.set_exception(error)


def _raised(item: _Done | Failed | BaseException) -> _Done | Failed:
    if isinstance(item, BaseException):
        raise item
    return item


_Item = TypeVar("_Item")


class ReadAhead(Generic[_Item]):
    """Iterate over items, and begin to read the images among them. Take only a few items ahead.

    Call `release` after the work on each item, and `close` at the end.
    """

    def __init__(self, items: Iterable[_Item]) -> None:
        self._items = items
        self._held: set[ImageRef] = set()

    def __iter__(self) -> Iterator[_Item]:
        for item in self._items:
            if isinstance(item, ImageRef) and needs_hold(item.path):
                hold(item.path)
                self._held.add(item)
            yield item

    def release(self, item: object, _: object = None) -> None:
        """Drop what was read ahead for an item. A callback of its result."""
        if isinstance(item, ImageRef):
            self._held.discard(item)
            release(item.path)

    def close(self) -> None:
        """Drop what was read ahead."""
        for ref in tuple(self._held):
            self.release(ref)
