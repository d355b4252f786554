"""Many images: decoding, the model, and labels and files overlap; results come in order, and a bad image ends nothing.

items ─ a thread ─► load, in threads ─► the model in batches, and scores, in the caller's thread ─► finish, in threads ─► results
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from tipsseg.errors import ImageError
from tipsseg.labelling.batches import Batched, Batches
from tipsseg.labelling.features import Features
from tipsseg.runs.engine.image_task import Loaded
from tipsseg.store.results import Failed
from tipsseg.types import ImageRef
from tipsseg.util.threads import Feeder

Scored = TypeVar("Scored")
Done = TypeVar("Done")
Done_co = TypeVar("Done_co", covariant=True)


class Task(Protocol[Scored, Done_co]):
    """What is done to an image, step by step: `ImageTask` labels it, `EncodeTask` keeps its features."""

    @property
    def windows_at_once(self) -> int:
        """How many windows make a batch."""

    def load(self, ref: ImageRef) -> Loaded:
        """Read an image; called from several threads. Raises ImageError."""

    def batches(self) -> Batches[Batched]:
        """What makes features of images; for the thread of the model, as are `keep` and `score`."""

    def keep(self, loaded: Loaded, features: Features) -> tuple[Loaded, Features]:
        """The features as they are kept, and the image with what is to be written of them."""

    def score(self, features: Features) -> Scored:
        """What `finish` needs of the features."""

    def finish(self, loaded: Loaded, scored: Scored) -> Done_co:
        """Write the files of an image; called from several threads. Raises ImageError for what is wrong with this one."""


def label_images(
    items: Iterable[ImageRef | Done | Failed], task: Task[Scored, Done], jobs: int
) -> Generator[Done | Failed, None, None]:
    """What becomes of each image, in the order of `items`; `jobs` threads decode, and make labels and files.

    `items` is gone through in a thread of its own and may come slowly: what has come is done, not held up for more. At most
    2 * `jobs` images are in memory, and as many more as windows make a batch. An image that cannot be read, or that a writer cannot
    take, is a Failed; other errors are raised.
    """
    happened = threading.Event()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="work")
    batches: Batches[_Image[Done]] = task.batches()
    line: deque[Future[Done | Failed]] = deque()  # what was taken and not yielded yet, in order
    loading: deque[_Loading[Done]] = deque()  # the images in it that the model has not got
    writing: set[Future[None]] = set()

    def encode(step: Iterable[tuple[_Image[Done], Features]]) -> Generator[Done | Failed, None, bool]:
        """A step of the model; whether it had any images ready. What was done before its error is told of before the error."""
        any_ready = False
        try:
            for image, features in step:
                any_ready = True
                image, features = _kept(task, image, features)  # noqa: PLW2901
                # Compared at once, so that features, which take the most memory, are gone before the next ones are made.
                finishing = pool.submit(_finish, task, image, task.score(features))
                writing.add(finishing)
                finishing.add_done_callback(writing.discard)
        except Exception:
            wait(set(writing))
            while line and line[0].done():
                yield line.popleft().result()
            raise
        return any_ready

    feed = Feeder(items, 2 * jobs + task.windows_at_once, happened.set)
    try:
        while True:
            happened.clear()
            while line and line[0].done():
                feed.make_room()
                yield line.popleft().result()
            if loading and loading[0].loaded.done():
                image = loading.popleft().image()
                if image is not None:
                    yield from encode(_encoded(image, batches))
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

    loaded: Loaded
    result: Future[Done | Failed]


@dataclass(frozen=True, slots=True)
class _Loading(Generic[Done]):
    """An image that a thread reads, and where its result goes."""

    ref: ImageRef
    loaded: Future[Loaded]
    result: Future[Done | Failed]

    def image(self) -> _Image[Done] | None:
        """The image, once it was read; None where it could not be."""
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
        return _Loading(item, pool.submit(task.load, item), result)
    if isinstance(item, BaseException):
        result.set_exception(item)
    else:
        result.set_result(item)
    return None


def _encoded(image: _Image[Done], batches: Batches[_Image[Done]]) -> Iterable[tuple[_Image[Done], Features]]:
    """The images whose features are there once this one has joined the batches; one that has its features passes by them."""
    if (known := image.loaded.features) is not None:
        return [(image, known)]
    return batches.add(image, image.loaded.lacking)


def _kept(task: Task[Scored, Done], image: _Image[Done], features: Features) -> tuple[_Image[Done], Features]:
    """The features as they are kept, and the image with what is to be written of them."""
    loaded, features = task.keep(image.loaded, features)
    return replace(image, loaded=loaded), features


def _finish(task: Task[Scored, Done], image: _Image[Done], scored: Scored) -> None:
    try:
        image.result.set_result(task.finish(image.loaded, scored))
    except ImageError as error:
        image.result.set_result(Failed(image.loaded.ref, error))
    except BaseException as error:  # whatever it is, it is raised in its turn
        image.result.set_exception(error)
