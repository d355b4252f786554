"""The engine "ray": the images of a run labelled by the actors of a Ray cluster.

This process reads the list of images, keeps the records of the run and prints; it needs no torch. The actors write the per-image
files, and share the file system with it.

items ─ a thread ─► batches ─► actors, a few batches each ─► results, in the order of the items

An actor that dies is replaced, and its images are labelled again: their files are the same bytes then.
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
from tipsseg.runs.engine.ray_actor import LabelActor, Plan
from tipsseg.store.results import ImageResult, Left
from tipsseg.store.spec import RunInfo
from tipsseg.store.writing import RunContext
from tipsseg.types import ImageRef
from tipsseg.util.files import clean_up_below
from tipsseg.util.printable import first_line
from tipsseg.util.threads import Feeder

#: Images that go to an actor at once: fewer where no more have come yet.
_BATCH = 16

#: Batches an actor has at a time, so that it need not wait for the next.
_AHEAD = 2

#: Images, as batches per actor, that may be under way before the oldest of them is done.
_WINDOW = 4

#: How often an actor may die over the same images, or while it loads the model, before the run ends.
_DEATHS = 4

#: Seconds that actors get to end.
_GRACE = 10.0

_SAME_COMMAND = "What is done stays; the same command goes on from there."


def check_ray(ray: Ray, device: str) -> None:
    """Raise UsageError if Ray is not installed, or would hide the device from its actors."""
    if find_spec("ray") is None:
        raise UsageError("argument `ray` needs Ray", "pip install 'tipsseg[ray]'")
    if device.startswith("cuda") and not ray.gpus:
        raise UsageError(
            f"argument `device`={device} with argument `ray`={ray}: Ray would hide the GPUs from its actors",
            f"Give each of them a GPU: argument `ray`={ray.actors}x1.",
        )


@dataclass(eq=False, slots=True)
class _Image:
    """An image on its way, and where its result goes.

    Attributes:
        ref: The image.
        result: Its result.
        deaths: How many actors died while they were at work on its batch.
    """

    ref: ImageRef
    result: Future[ImageResult] = field(default_factory=Future)
    deaths: int = 0


@dataclass(eq=False, slots=True)
class _Task:
    """What an actor was asked for: to load the model, or to label images."""

    answer: Future[Any]
    images: tuple[_Image, ...] = ()


@dataclass(eq=False, slots=True)
class _Worker:
    """An actor, with what it was asked for and has not answered yet, in order; `ready` once it has loaded the model."""

    actor: Any
    tasks: deque[_Task]
    ready: bool = False


class RayEngine:
    """Labels images in actors of a Ray cluster. Use as a context manager: at its end the actors are gone."""

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
        """Join the cluster of $RAY_ADDRESS, or start Ray on this machine, and wait for the first model; see Engine."""
        import ray

        self._context = context
        self._stack.enter_context(redirect_stdout(messages := _Messages(sys.stdout)))
        if self._stack.enter_context(_connected()):
            _check_resources(self._wanted)
        self._plan = ray.put(Plan(self._info, context, Path.cwd(), __version__))
        self._stack.callback(self._end_actors)
        self._stack.callback(messages.end)
        self._workers = [self._hire() for _ in range(self._wanted.actors)]
        while self._started is None:
            self._happened.wait()
            self._happened.clear()
            self._collect()
        return self._started

    def batch_size(self) -> int | None:
        """Not known: each actor has its own, see Engine."""
        return None

    def results(self, items: Iterable[Left]) -> Generator[ImageResult, None, None]:
        """Label the images, see Engine. `items` is gone through in a thread of its own, as in `pipeline.run_tasks`."""
        line: deque[Future[ImageResult]] = deque()  # what was taken and not yielded yet, in order
        feed = Feeder(items, self._wanted.actors * _WINDOW * _BATCH, self._happened.set)
        finished = False
        try:
            while line or not feed.ended:
                self._happened.clear()
                while (item := feed.take()) is not None:
                    line.append(self._begin(item))
                self._collect()
                self._send()
                if (line and not line[0].done()) or not (line or feed.ended):
                    self._happened.wait()
                while line and line[0].done():
                    feed.make_room()
                    yield line.popleft().result()
            finished = True
        finally:
            feed.stop()
            if not finished or self._any_died:
                self._end_actors()
                # Files that actors were about to write when they ended.
                clean_up_below((self._context.output / folder for folder in image_folders()), self._context.owner)

    def _begin(self, item: Left | BaseException) -> Future[ImageResult]:
        """Where the result of an item goes; of all but an image it is known."""
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

    def _hire(self) -> _Worker:
        """A new actor, which begins to load the model."""
        import ray

        actor: Any = ray.remote(LabelActor).options(num_cpus=1, num_gpus=self._wanted.gpus).remote(self._plan)
        return _Worker(actor, deque([_Task(self._answer(actor.start.remote()))]))

    def _answer(self, reference: Any) -> Future[Any]:
        answer: Future[Any] = reference.future()
        answer.add_done_callback(lambda _: self._happened.set())
        return answer

    def _send(self) -> None:
        """Give batches to the actors that have room for them, first to those with the least to do."""
        for filled in range(_AHEAD):
            for worker in self._workers:
                if worker.ready and len(worker.tasks) == filled and self._waiting:
                    images = tuple(self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting))))
                    answer = self._answer(worker.actor.label.remote([image.ref for image in images]))
                    worker.tasks.append(_Task(answer, images))

    def _collect(self) -> None:
        """Take the answers that have come. Raises TipssegError for what ends the run."""
        from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

        for number, worker in enumerate(self._workers):
            while worker.tasks and worker.tasks[0].answer.done():
                task = worker.tasks[0]
                try:
                    answer = task.answer.result()
                except (RayActorError, ObjectLostError) as error:
                    self._workers[number] = self._replace(worker, error)
                    break
                except RayTaskError:  # an error in the code that Ray ran
                    raise
                except RayError as error:
                    raise TipssegError(f"Ray cannot go on: {first_line(error)}", _SAME_COMMAND) from error
                worker.tasks.popleft()
                if task.images:
                    _set_results(task.images, answer)
                else:
                    self._take_start(answer)
                    worker.ready = True

    def _take_start(self, answer: RunInfo | TipssegError) -> None:
        """Take what an actor came to. Raises TipssegError where it cannot start, or is not like the others."""
        if isinstance(answer, TipssegError):
            raise answer
        self._started = self._started or answer
        self._failed_starts = 0
        _check_same((self._started.device, self._started.dtype), (answer.device, answer.dtype))

    def _replace(self, worker: _Worker, error: Exception) -> _Worker:
        """A new actor in the place of one that died; its images come first. Raises TipssegError where that happens too often."""
        import ray

        self._any_died = True
        ray.kill(worker.actor)  # where it was only out of reach
        at_work = worker.tasks[0].images
        for image in at_work:
            image.deaths += 1
        self._failed_starts += not at_work
        if max(self._failed_starts, *(image.deaths for image in at_work), 0) >= _DEATHS:
            more = f" and {len(at_work) - 1} more" if len(at_work) > 1 else ""
            doing = f"labelled {at_work[0].ref.path}{more}" if at_work else "loaded the model"
            raise TipssegError(
                f"{_DEATHS} actors died while they {doing}: {first_line(error)}",
                f"They may have run out of memory. {_SAME_COMMAND}",
            )
        self._waiting.extendleft(reversed([image for task in worker.tasks for image in task.images]))
        return self._hire()

    def _end_actors(self) -> None:
        """End the actors, also in the middle of their work. Safe to call twice."""
        import ray
        from ray.exceptions import RayError

        for worker in self._workers:
            with suppress(RayError):  # it is gone with its machine
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
    """Tell of each image what became of it; after an error, which ends the run, there are no more answers."""
    for image, answer in zip(images, answers, strict=False):
        if isinstance(answer, TipssegError):
            image.result.set_exception(answer)
        else:
            image.result.set_result(answer)


def _check_same(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Raise DeviceError for actors on devices, or with dtypes, that are not the same: their labels would differ."""
    if one != other:
        here, there = (f"{device} ({dtype})" for device, dtype in (one, other))
        raise DeviceError(
            other[0],
            f"one actor runs on {here} and another on {there}: their labels would differ",
            "Say what all of them have, with argument `device`, argument `dtype` and argument `ray`.",
        )


class _Messages:
    """Stands for stdout while Ray runs, which prints messages there, as of actors that died: text goes to stderr.

    Results go through `buffer`, see progress.py, and that is the one of stdout.
    """

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout
        self._ended = False

    def end(self) -> None:
        """Pass nothing on: from now on there are only complaints of actors that were ended."""
        self._ended = True

    def write(self, text: str) -> int:
        return len(text) if self._ended else sys.stderr.write(text)

    def flush(self) -> None:
        self._stdout.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stdout, name)


@contextmanager
def _connected() -> Iterator[bool]:
    """Be connected to Ray; whether this has started it."""
    import ray

    if ray.is_initialized():  # by a program that uses tipsseg as a library
        yield False
        return
    address = os.environ.get("RAY_ADDRESS", "")
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        with _no_reports():
            ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if not address:
            raise
        raise TipssegError(
            f"cannot join the Ray cluster at {address}: {first_line(error)}",
            "RAY_ADDRESS says where it is, and RAY_AUTH_MODE=token that it asks for a token; without RAY_ADDRESS, Ray starts here.",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)  # Ray takes it
    try:
        yield not address
    finally:
        ray.shutdown()


def _check_resources(wanted: Ray) -> None:
    """Raise UsageError for actors that would wait forever; a cluster of others may well grow."""
    import ray

    there = ray.cluster_resources()
    for name, each in (("CPU", 1), ("GPU", wanted.gpus)):
        has = there.get(name, 0)
        if wanted.actors * each > has:
            raise UsageError(
                f"argument `ray`={wanted} needs {wanted.actors * each:g} {name}s, and this machine has {has:g}",
                "Give fewer actors, or join a cluster with the environment variable RAY_ADDRESS.",
            )


@contextmanager
def _no_reports() -> Iterator[None]:
    """Let a Ray that starts report nothing to its makers, where the environment does not say otherwise."""
    name = "RAY_USAGE_STATS_ENABLED"
    if name in os.environ:
        yield
        return
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]
