"""What is done to many images: reading, the model, and what follows overlap; results come in order, and a bad image ends nothing.

items ─ a thread ─► load, in threads ─► the model in batches, and scores, in the caller's thread ─► finish, in threads ─► results
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from tipsseg.errors import ImageError
from tipsseg.labelling.batches import Batches
from tipsseg.labelling.features import Features
from tipsseg.labelling.source import FeatureSource, Loaded, Unsaved
from tipsseg.store.results import Failed
from tipsseg.types import ImageRef
from tipsseg.util.threads import Feeder

Scored = TypeVar("Scored")
Done = TypeVar("Done")
Done_co = TypeVar("Done_co", covariant=True)


class Task(Protocol[Scored, Done_co]):
    """What is done to an image once its features are there: it is labelled, kept, or learnt from.

    Attributes:
        source: Where its features come from.
    """

    source: FeatureSource[Any]

    def score(self, scales: Sequence[Any]) -> Scored:
        """Return what `finish` needs of the features at each scale; for the thread of the model."""

    def finish(self, loaded: Loaded[Any], scored: Scored) -> Done_co:
        """Do the rest; several threads call this. Raises ImageError for what is wrong with this image."""


def run_tasks(
    items: Iterable[ImageRef | Done | Failed], task: Task[Scored, Done], jobs: int
) -> Generator[Done | Failed, None, None]:
    """Yield what becomes of each image, in the order of `items`; `jobs` threads read images and do what follows the model.

    `items` is gone through in a thread of its own and may come slowly: what has come is done, not held up for more. At most
    2 * `jobs` images are in memory, and as many more as windows make a batch. An image that cannot be read, or that `finish`
    refuses, is a Failed; other errors are raised.
    """
    happened = threading.Event()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="work")
    source = task.source
    batches: Batches[_Image[Done]] = source.batches()
    line: deque[Future[Done | Failed]] = deque()  # what was taken and not yielded yet, in order
    loading: deque[_Loading[Done]] = deque()  # the images in it that the model has not got
    writing: set[Future[None]] = set()

    def encode(step: Iterable[tuple[_Image[Done], Features | None]]) -> Generator[Done | Failed, None, bool]:
        """Take a step of the model; return whether any images are ready. What was done before its error is told before it."""
        any_ready = False
        try:
            for image, made in step:
                any_ready = True
                scales, unsaved = source.keep(image.loaded, made)
                # Compared at once, so that features, which take the most memory, are gone before the next ones are made.
                finishing = pool.submit(_finish, task, image, task.score(scales), unsaved)
                writing.add(finishing)
                finishing.add_done_callback(writing.discard)
        except Exception:
            wait(set(writing))
            while line and line[0].done():
                yield line.popleft().result()
            raise
        return any_ready

    feed = Feeder(items, 2 * jobs + source.windows_at_once, happened.set)
    try:
        while True:
            happened.clear()
            while line and line[0].done():
                feed.make_room()
                yield line.popleft().result()
            if loading and loading[0].loaded.done():
                image = loading.popleft().image()
                if image is not None:
                    yield from encode(_add(image, batches))
            elif (item := feed.take()) is not None:
                result: Future[Done | Failed] = Future()
                result.add_done_callback(lambda _: happened.set())
                line.append(result)
                if (begun := _begin(item, result, task, pool)) is not None:
                    begun.loaded.add_done_callback(lambda _: happened.set())
                    loading.append(begun)
            elif (yield from encode(batches.flush())):
                continue
            elif not line and feed.ended:
                return
            else:
                happened.wait()
    finally:
        feed.stop()
        pool.shutdown(wait=False, cancel_futures=True)
        # Files that are being written get whole, or not begun, before anybody else may have the folder.
        wait(set(writing))


@dataclass(frozen=True, slots=True)
class _Image(Generic[Done]):
    """An image that was read, and where its result goes."""

    loaded: Loaded[Any]
    result: Future[Done | Failed]


@dataclass(frozen=True, slots=True)
class _Loading(Generic[Done]):
    """An image that a thread reads, and where its result goes."""

    ref: ImageRef
    loaded: Future[Loaded[Any]]
    result: Future[Done | Failed]

    def image(self) -> _Image[Done] | None:
        """Return the image, once it was read; None if it could not be."""
        try:
            return _Image(self.loaded.result(), self.result)
        except ImageError as error:
            self.result.set_result(Failed(self.ref, error))
        except Exception as error:  # whatever it is, it is raised in its turn
            self.result.set_exception(error)
        return None


def _begin(
    item: ImageRef | Done | Failed | BaseException,
    result: Future[Done | Failed],
    task: Task[Scored, Done],
    pool: ThreadPoolExecutor,
) -> _Loading[Done] | None:
    """Have an image read; of everything else the result is known."""
    if isinstance(item, ImageRef):
        return _Loading(item, pool.submit(task.source.load, item), result)
    if isinstance(item, BaseException):
        result.set_exception(item)
    else:
        result.set_result(item)
    return None


def _add(image: _Image[Done], batches: Batches[_Image[Done]]) -> Iterable[tuple[_Image[Done], Features | None]]:
    """Return the images that are ready once this one has joined the batches; one whose features are known passes by them."""
    lacking = image.loaded.lacking
    return [(image, None)] if lacking is None else batches.add(image, lacking)


def _finish(task: Task[Scored, Done], image: _Image[Done], scored: Scored, unsaved: Sequence[Unsaved]) -> None:
    try:
        task.source.save(unsaved)
        image.result.set_result(task.finish(image.loaded, scored))
    except ImageError as error:
        image.result.set_result(Failed(image.loaded.ref, error))
    except BaseException as error:  # whatever it is, it is raised in its turn
        image.result.set_exception(error)
