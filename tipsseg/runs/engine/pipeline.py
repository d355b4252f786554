"""Run a task on many images. Loading, the model and finishing overlap; results come in order; a bad image does not end the run.

items ─ a thread ─► load, in threads ─► model in batches, then score, in the caller's thread ─► finish, in threads ─► results
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from tipsseg.errors import ImageError
from tipsseg.labelling.batches import Batches
from tipsseg.labelling.features import Features
from tipsseg.labelling.source import FeatureSource, Loaded, PendingRecord
from tipsseg.run.results import Failed
from tipsseg.runs.engine.ahead import ReadAhead
from tipsseg.types import ImageRef
from tipsseg.util.threads import Feeder

Scored = TypeVar("Scored")
Done = TypeVar("Done")
Done_co = TypeVar("Done_co", covariant=True)


class Task(Protocol[Scored, Done_co]):
    """The work on an image with its features: label it, store it, or learn from it."""

    @property
    def source(self) -> FeatureSource[Any]:
        """The source of the features."""

    def score(self, scales: Sequence[Any]) -> Scored:
        """Return the data that `finish` needs from the features of all scales. Runs in the model's thread."""

    def finish(self, loaded: Loaded[Any], scored: Scored) -> Done_co:
        """Finish an image and return its result. Must be thread-safe. Raises ImageError if this image fails."""


@dataclass(frozen=True, slots=True, eq=False)
class FunctionTask(Generic[Scored, Done]):
    """A task made of functions, see Task."""

    source: FeatureSource[Any]
    score: Callable[[Sequence[Any]], Scored]
    finish: Callable[[Loaded[Any], Scored], Done]


def run_tasks(
    items: Iterable[ImageRef | Done | Failed], task: Task[Scored, Done], jobs: int
) -> Generator[Done | Failed, None, None]:
    """Run a task on images with `jobs` threads. Yield the results in order, and pass other items through.

    `items` may arrive slowly: images are finished without waiting for a full batch. Memory holds at most 2 * `jobs` images, plus
    the windows of a batch. An ImageError while loading or finishing yields a Failed; other errors are raised.
    """
    happened = threading.Event()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="work")
    source = task.source
    batches: Batches[_Image[Done]] = source.batches()
    queue: deque[Future[Done | Failed]] = deque()  # results to yield, in order
    loading: deque[_Loading[Done]] = deque()  # the images in `queue` that wait for the model
    writing: set[Future[None]] = set()

    def encode(step: Iterable[tuple[_Image[Done], Features | None]]) -> Generator[Done | Failed, None, bool]:
        """Finish the images of a model step, and return True if there are any. On an error, yield finished images first."""
        any_ready = False
        try:
            for image, features in step:
                any_ready = True
                scales, unsaved = source.merge(image.loaded, features)
                # Score now, to free the features, which take the most memory, before the next model step.
                finishing = pool.submit(_finish, task, image, task.score(scales), unsaved)
                writing.add(finishing)
                finishing.add_done_callback(writing.discard)
        except Exception:
            wait(set(writing))
            while queue and queue[0].done():
                yield queue.popleft().result()
            raise
        return any_ready

    ahead = ReadAhead(items)
    feed = Feeder(ahead, 2 * jobs + source.batch_size, happened.set)
    try:
        while True:
            happened.clear()
            while queue and queue[0].done():
                feed.make_room()
                yield queue.popleft().result()
            if loading and loading[0].loaded.done():
                image = loading.popleft().image()
                if image is not None:
                    yield from encode(_add(image, batches))
            elif (item := feed.take()) is not None:
                result, begun = _begin(item, task, pool, happened)
                result.add_done_callback(partial(ahead.release, item))
                queue.append(result)
                loading.extend(begun)
            elif (yield from encode(batches.flush())):
                continue
            elif not queue and feed.ended:
                return
            else:
                happened.wait()
    finally:
        feed.stop()
        ahead.close()
        pool.shutdown(wait=False, cancel_futures=True)
        # Wait for running writers before another process may lock the folder.
        wait(set(writing))


@dataclass(frozen=True, slots=True)
class _Image(Generic[Done]):
    """A loaded image, and the future of its result."""

    loaded: Loaded[Any]
    result: Future[Done | Failed]


@dataclass(frozen=True, slots=True)
class _Loading(Generic[Done]):
    """An image that a thread is loading, and the future of its result."""

    ref: ImageRef
    loaded: Future[Loaded[Any]]
    result: Future[Done | Failed]

    def image(self) -> _Image[Done] | None:
        """Return the loaded image; None if loading failed, which sets its result."""
        try:
            return _Image(self.loaded.result(), self.result)
        except ImageError as error:
            self.result.set_result(Failed(self.ref, error))
        except Exception as error:  # raised when it is this image's turn
            self.result.set_exception(error)
        return None


def _begin(
    item: ImageRef | Done | Failed | BaseException,
    task: Task[Scored, Done],
    pool: ThreadPoolExecutor,
    happened: threading.Event,
) -> tuple[Future[Done | Failed], list[_Loading[Done]]]:
    """Return the future of an item's result, and the image if it now loads. Both set `happened` when they are done."""
    result: Future[Done | Failed] = Future()
    result.add_done_callback(lambda _: happened.set())
    if isinstance(item, ImageRef):
        loaded = pool.submit(task.source.load, item)
        loaded.add_done_callback(lambda _: happened.set())
        return result, [_Loading(item, loaded, result)]
    if isinstance(item, BaseException):
        result.set_exception(item)
    else:
        result.set_result(item)
    return result, []


def _add(image: _Image[Done], batches: Batches[_Image[Done]]) -> Iterable[tuple[_Image[Done], Features | None]]:
    """Add an image to the batches and return the images that are ready; a stored one is ready at once."""
    missing = image.loaded.missing
    return [(image, None)] if missing is None else batches.add(image, missing)


def _finish(task: Task[Scored, Done], image: _Image[Done], scored: Scored, unsaved: Sequence[PendingRecord]) -> None:
    try:
        task.source.save(unsaved)
        image.result.set_result(task.finish(image.loaded, scored))
    except ImageError as error:
        image.result.set_result(Failed(image.loaded.ref, error))
    except BaseException as error:  # raised when it is this image's turn
        image.result.set_exception(error)
