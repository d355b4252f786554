"""The Ray engine: label the images of a run with the actors of a Ray cluster.

The driver, which is this process, lists images, keeps the records of the run and prints; it does not import torch. The actors write
the per-image files to a shared file system.

items ─ a thread ─► batches ─► actors, a few batches per actor ─► results, in the order of the items

If an actor dies, another one labels its images again and writes the same bytes.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from tipsseg._version import __version__
from tipsseg.errors import DeviceError, TipssegError, UsageError
from tipsseg.formats import image_folders
from tipsseg.options.run import Ray
from tipsseg.run.labels import RunContext
from tipsseg.run.results import ImageResult, Left
from tipsseg.run.spec import RunInfo
from tipsseg.runs.engine.ray_actor import LabelActor, Plan
from tipsseg.types import ImageRef
from tipsseg.util.files import clean_up_below
from tipsseg.util.printable import first_line
from tipsseg.util.threads import Feeder

#: Maximum number of images in a batch.
_BATCH = 16

#: Batches queued per actor, so that it never waits for the next one.
_AHEAD = 2

#: Maximum number of batches per actor between the oldest unfinished image and the newest one.
_WINDOW = 4

#: The number of actor deaths on the same images, or while loading the model, that ends the run.
_DEATHS = 4

#: Seconds to wait for actors to end.
_GRACE = 10.0

_SAME_COMMAND = "Run the same command to resume."


def check_ray(ray: Ray, device: str) -> None:
    """Raise UsageError if Ray is not installed, or would hide the GPUs from its actors."""
    if find_spec("ray") is None:
        raise UsageError("argument `ray` needs Ray", "Install it: pip install 'tipsseg[ray]'")
    if device.startswith("cuda") and not ray.gpus:
        raise UsageError(
            f"argument `device`={device} with argument `ray`={ray}: Ray would hide the GPUs from its actors",
            f"Set one GPU per actor: argument `ray`={ray.actors}x1.",
        )


@dataclass(eq=False, slots=True)
class _Image:
    """An unfinished image.

    Attributes:
        ref: The image.
        result: The future of its result.
        deaths: The number of actors that died while they labelled its batch.
    """

    ref: ImageRef
    result: Future[ImageResult] = field(default_factory=Future)
    deaths: int = 0


@dataclass(eq=False, slots=True)
class _Task:
    """A call of an actor: label these images, or load the model if there are none."""

    answer: Future[Any]
    images: tuple[_Image, ...] = ()


@dataclass(eq=False, slots=True)
class _Worker:
    """An actor and its unfinished calls, in order; `ready` once it has loaded the model."""

    actor: Any
    tasks: deque[_Task]
    ready: bool = False


class RayEngine:
    """Label images with the actors of a Ray cluster. Use as a context manager, which ends the actors."""

    def __init__(self, info: RunInfo, wanted: Ray) -> None:
        check_ray(wanted, info.spec.device)
        self._info = info
        self._wanted = wanted
        self._started: RunInfo | None = None
        self._workers: list[_Worker] = []
        self._waiting: deque[_Image] = deque()
        self._failed_starts = 0
        self._any_died = False
        self._happened = threading.Event()
        self._stack = ExitStack()

    def start(self, context: RunContext, images: Sequence[ImageRef] = ()) -> RunInfo:
        """Join the cluster at $RAY_ADDRESS, or start Ray on this machine, and wait until an actor has loaded the model."""
        import ray

        self._context = context
        self._stack.enter_context(redirect_stdout(messages := _Messages(sys.stdout)))
        if self._stack.enter_context(_connect()):
            _check_resources(self._wanted)
        self._plan = ray.put(Plan(self._info, context, Path.cwd(), __version__))
        self._stack.callback(self._end_actors)
        self._stack.callback(messages.end)
        self._workers = [self._start_actor() for _ in range(self._wanted.actors)]
        while self._started is None:
            self._happened.wait()
            self._happened.clear()
            self._collect()
        return self._started

    def batch_size(self) -> int | None:
        return None  # each actor has its own

    def results(self, items: Iterable[Left]) -> Generator[ImageResult, None, None]:
        queue: deque[Future[ImageResult]] = deque()  # results to yield, in order
        feed = Feeder(items, self._wanted.actors * _WINDOW * _BATCH, self._happened.set)
        finished = False
        try:
            while queue or not feed.ended:
                self._happened.clear()
                while (item := feed.take()) is not None:
                    queue.append(self._begin(item))
                self._collect()
                self._send()
                if (queue and not queue[0].done()) or not (queue or feed.ended):
                    self._happened.wait()
                while queue and queue[0].done():
                    feed.make_room()
                    yield queue.popleft().result()
            finished = True
        finally:
            feed.stop()
            if not finished or self._any_died:
                self._end_actors()
                # Killed actors may leave temporary files.
                clean_up_below(self._context.output / folder for folder in image_folders())

    def _begin(self, item: Left | BaseException) -> Future[ImageResult]:
        """Return the future of an item's result, and queue the item if it is an image."""
        if isinstance(item, ImageRef):
            image = _Image(item)
            self._waiting.append(image)
            return image.result
        known: Future[ImageResult] = Future()
        if isinstance(item, BaseException):
            known.set_exception(item)
        else:
            known.set_result(item)
        return known

    def _start_actor(self) -> _Worker:
        """Start an actor, which begins to load the model."""
        import ray

        actor: Any = ray.remote(LabelActor).options(num_cpus=1, num_gpus=self._wanted.gpus).remote(self._plan)
        return _Worker(actor, deque([_Task(self._answer(actor.start.remote()))]))

    def _answer(self, reference: Any) -> Future[Any]:
        answer: Future[Any] = reference.future()
        answer.add_done_callback(lambda _: self._happened.set())
        return answer

    def _send(self) -> None:
        """Send batches to actors with room for them, to the least busy ones first."""
        for filled in range(_AHEAD):
            for worker in self._workers:
                if worker.ready and len(worker.tasks) == filled and self._waiting:
                    images = tuple(self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting))))
                    answer = self._answer(worker.actor.label.remote([image.ref for image in images]))
                    worker.tasks.append(_Task(answer, images))

    def _collect(self) -> None:
        """Handle the answers of finished calls. Raises TipssegError if the run cannot continue."""
        from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

        for number, worker in enumerate(self._workers):
            while worker.tasks and worker.tasks[0].answer.done():
                task = worker.tasks[0]
                try:
                    answer = task.answer.result()
                except (RayActorError, ObjectLostError) as error:
                    self._workers[number] = self._replace(worker, error)
                    break
                except RayTaskError:  # a bug in the actor's code
                    raise
                except RayError as error:
                    raise TipssegError(f"Ray failed: {first_line(error)}", _SAME_COMMAND) from error
                worker.tasks.popleft()
                if task.images:
                    _set_results(task.images, answer)
                else:
                    self._check_start(answer)
                    worker.ready = True

    def _check_start(self, answer: RunInfo | TipssegError) -> None:
        """Record the start of an actor. Raises TipssegError if it cannot start, or differs from the other actors."""
        if isinstance(answer, TipssegError):
            raise answer
        self._started = self._started or answer
        self._failed_starts = 0
        _check_same((self._started.device, self._started.dtype), (answer.device, answer.dtype))

    def _replace(self, worker: _Worker, error: Exception) -> _Worker:
        """Replace a dead actor, and label its images first. Raises TipssegError after too many deaths."""
        import ray

        self._any_died = True
        ray.kill(worker.actor)  # in case it was only unreachable
        images = worker.tasks[0].images
        for image in images:
            image.deaths += 1
        self._failed_starts += not images
        if max(self._failed_starts, *(image.deaths for image in images), 0) >= _DEATHS:
            more = f" and {len(images) - 1} more" if len(images) > 1 else ""
            doing = f"labelled {images[0].ref.address}{more}" if images else "loaded the model"
            raise TipssegError(
                f"{_DEATHS} actors died while they {doing}: {first_line(error)}",
                f"They may have run out of memory. {_SAME_COMMAND}",
            )
        self._waiting.extendleft(reversed([image for task in worker.tasks for image in task.images]))
        return self._start_actor()

    def _end_actors(self) -> None:
        """Kill all actors. Safe to call twice."""
        import ray
        from ray.exceptions import RayError

        for worker in self._workers:
            with suppress(RayError):  # its machine may be down
                ray.kill(worker.actor)
        wait([task.answer for worker in self._workers for task in worker.tasks], _GRACE)
        self._workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _set_results(images: Sequence[_Image], answers: Sequence[ImageResult | TipssegError]) -> None:
    """Set the results of images. An error ends the run and is the last answer."""
    for image, answer in zip(images, answers, strict=False):
        if isinstance(answer, TipssegError):
            image.result.set_exception(answer)
        else:
            image.result.set_result(answer)


def _check_same(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Raise DeviceError if two actors have different devices or dtypes, because their labels would differ."""
    if one != other:
        here, there = (f"{device} ({dtype})" for device, dtype in (one, other))
        raise DeviceError(
            other[0],
            f"one actor runs on {here} and another on {there}: their labels would differ",
            "Set argument `device`, argument `dtype` and argument `ray` to values that all machines support.",
        )


class _Messages:
    """A stdout that sends text to stderr, because Ray prints messages to stdout.

    Results are written to `buffer`, see progress.py, which is still that of stdout.
    """

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout
        self._ended = False

    def end(self) -> None:
        """Drop all text from now on: Ray only complains about killed actors."""
        self._ended = True

    def write(self, text: str) -> int:
        return len(text) if self._ended else sys.stderr.write(text)

    def flush(self) -> None:
        self._stdout.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stdout, name)


@contextmanager
def _connect() -> Iterator[bool]:
    """Connect to Ray. Yields True if this call started Ray."""
    import ray

    if ray.is_initialized():  # by a program that imports tipsseg
        yield False
        return
    address = os.environ.get("RAY_ADDRESS", "")
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        with _without_statistics():
            ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if not address:
            raise
        raise TipssegError(
            f"cannot join the Ray cluster at {address}: {first_line(error)}",
            "Check the environment variable RAY_ADDRESS, and set RAY_AUTH_MODE=token if the cluster needs a token. "
            "Without RAY_ADDRESS, Ray starts on this machine.",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)  # ray.init replaces the handler
    try:
        yield not address
    finally:
        ray.shutdown()


def _check_resources(wanted: Ray) -> None:
    """Raise UsageError if this machine has too few CPUs or GPUs for all actors. A cluster may grow instead."""
    import ray

    resources = ray.cluster_resources()
    for name, per_actor in (("CPU", 1), ("GPU", wanted.gpus)):
        available = resources.get(name, 0)
        if wanted.actors * per_actor > available:
            raise UsageError(
                f"argument `ray`={wanted} needs {wanted.actors * per_actor:g} {name}s, but this machine has {available:g}",
                "Use fewer actors, or join a cluster with the environment variable RAY_ADDRESS.",
            )


@contextmanager
def _without_statistics() -> Iterator[None]:
    """Disable Ray's usage statistics, unless the environment enables them."""
    name = "RAY_USAGE_STATS_ENABLED"
    if name in os.environ:
        yield
        return
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]
