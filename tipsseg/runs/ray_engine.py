"""`--engine ray`: the images of a run labelled by the actors of a Ray cluster, through Ray Data.

This process reads the list of images, keeps the records of the run and prints; it needs no torch. The actors write the images' own
pictures, so they share the file system with it.

Images travel in batches: this process ─► a queue ─► one task that hands them out ─► `map_batches` of LabelActor ─► this process. It
is one data set for the whole run, as every further one would load the model anew; and it begins with a queue, as a list may come
bit by bit.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from tipsseg import __version__
from tipsseg.errors import DeviceError, TipssegError, UsageError
from tipsseg.formats import image_folders
from tipsseg.formats.base import RunContext
from tipsseg.runs.ray_actor import Answer, Batch, LabelActor, Plan, from_table, to_table
from tipsseg.store.results import ImageResult, Item
from tipsseg.store.spec import RunInfo
from tipsseg.types import ImageRef
from tipsseg.util.files import clean_up_below

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset
    from ray.util.queue import Queue

#: Images that go to an actor at once: fewer where no more have come yet. Ray Data looks for results ten times a second, and keeps
#: some 3 KB of each batch for its statistics.
_BATCH = 16

#: Batches an actor has at a time, so that it need not wait for the next.
_AHEAD = 2

#: Images, as batches an actor, that may be under way before the oldest of them is done.
_WINDOW = 4

#: What the queue begins with.
_BEGIN = "begin"

#: In the environment while Ray starts. It logs a restriction of Ray Data as an error, for each actor; and it is only a tool here,
#: so it reports nothing to its makers.
_ENVIRONMENT = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}

#: Nothing is printed, and each batch goes on alone, not held up for more.
_DATA_SETTINGS = {"enable_progress_bars": False, "print_on_execution_start": False, "target_max_block_size": 1}

_SAME_COMMAND = "What is done stays; the same command goes on from there."


def check_ray(actors: int, gpus: float, device: str) -> None:
    """Raise UsageError where Ray is not installed, or for numbers that cannot be."""
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise UsageError("--engine ray needs Ray", "pip install 'tipsseg[ray]'")
    if actors < 1:
        raise UsageError(f"--actors {actors} is too small; the least is 1")
    if not 0 <= gpus < math.inf:
        raise UsageError(
            f"--gpus {gpus:g} is no number of GPUs", "Give those of one actor: 1, or 0.5 for two on a GPU."
        )
    if gpus > 1 and gpus != int(gpus):
        raise UsageError(
            f"--gpus {gpus:g} is not possible with Ray", "Give a part of one GPU, such as 0.5, or a whole number."
        )
    if device.startswith("cuda") and not gpus:
        raise UsageError(f"--device {device} with --gpus 0: Ray would hide the GPUs from its actors", "Give --gpus 1.")


class RayEngine:
    """Labels images in actors of a Ray cluster. Use as a context manager: at its end the actors are gone."""

    def __init__(self, info: RunInfo, actors: int, gpus: float) -> None:
        """Nothing is started yet. Raises as `check_ray` does.

        actors  how many there are, each with a model of its own
        gpus    of each; two share one with 0.5
        """
        check_ray(actors, gpus, info.spec.device)
        self._info = info
        self._actors = actors
        self._gpus = gpus
        self._ran_on: tuple[str, str] | None = None
        self._stack = ExitStack()

    def start(self, context: RunContext) -> RunInfo:
        """Join the cluster of $RAY_ADDRESS, or start Ray on this machine, and wait for the first model; see Engine."""
        from ray.util.queue import Queue

        stack = self._stack
        self._context = context
        plan = Plan(self._info, context, Path.cwd(), __version__)
        messages = _Messages(sys.stdout)
        stack.enter_context(redirect_stdout(messages))
        ours = stack.enter_context(_connected())
        stack.enter_context(_quiet(logging.ERROR if ours else logging.WARNING))
        stack.enter_context(_data_settings())
        if ours:
            _check_resources(self._actors, self._gpus)
        self._queue = queue = Queue(actor_options={"num_cpus": 0})
        stack.callback(queue.shutdown, force=True)
        queue.put(_BEGIN)
        queue.put(to_table(Batch(0)))
        self._answers = _answers(_data_set(queue, plan, self._actors, self._gpus))
        stack.callback(self._answers.close)
        stack.callback(messages.end)
        answer = self._next()
        if answer.started is None:
            raise next(each for each in answer.outcomes if isinstance(each, TipssegError))
        self._ran_on = answer.ran_on
        return answer.started

    def batch_size(self) -> int | None:
        """Not known: each actor has its own, see Engine."""
        return None

    def results(self, items: Iterable[Item]) -> Generator[ImageResult, None, None]:
        """Label the images, see Engine. `items` is gone through in a thread of its own, as in `pipeline.label_images`."""
        feed = _Feed(items, self._queue, self._actors * _WINDOW * _BATCH)
        done: dict[int, ImageResult | TipssegError] = {}
        number = 0
        finished = False
        try:
            for item in feed.items():
                if not isinstance(item, ImageRef):
                    yield item
                    continue
                while number not in done:
                    answer = self._next()
                    done.update(enumerate(answer.outcomes, answer.first))
                outcome = done.pop(number)
                number += 1
                if isinstance(outcome, TipssegError):
                    raise outcome
                yield outcome
            finished = True
        finally:
            feed.stop()
            if not finished:
                self._stop_at_once()

    def _stop_at_once(self) -> None:
        """End the actors in the middle of their work, and remove what they were writing."""
        self._stack.close()
        context = self._context
        clean_up_below((context.output / folder for folder in image_folders()), context.owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _next(self) -> Answer:
        """The next answer of any actor. Raises TipssegError where Ray lost what it needs, or actors differ."""
        from ray.exceptions import RayError, RayTaskError

        try:
            answer = next(self._answers)
        except RayTaskError:  # an error in the code that Ray ran
            raise
        except RayError as error:
            raise TipssegError(f"Ray cannot go on: {str(error).splitlines()[0]}", _SAME_COMMAND) from error
        if answer.ran_on is not None:
            _check_same(self._ran_on or answer.ran_on, answer.ran_on)
        return answer


def _check_same(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Raise DeviceError for actors on devices, or with dtypes, that are not the same: their labels would differ."""
    if one != other:
        here, there = (f"{device} ({dtype})" for device, dtype in (one, other))
        raise DeviceError(
            other[0],
            f"one actor runs on {here} and another on {there}: their labels would differ",
            "Say what all of them have, with --device, --dtype and --gpus.",
        )


class _Feed:
    """Items on their way: each is to be waited for in its turn, and the images among them are in the queue of the actors."""

    def __init__(self, items: Iterable[Item], queue: Queue, window: int) -> None:
        """`window` items may be taken from `items` and not yet asked for."""
        self._source = items
        self._queue = queue
        self._room = threading.Semaphore(window)
        self._stopped = threading.Event()
        self._taken: SimpleQueue[Item | BaseException | None] = SimpleQueue()
        self._images: SimpleQueue[ImageRef | None] = SimpleQueue()
        # Daemons, as nothing ends a thread that waits for a line on stdin.
        threading.Thread(target=self._take, name="feed", daemon=True).start()
        self._sender = threading.Thread(target=self._send, name="send", daemon=True)
        self._sender.start()

    def items(self) -> Iterator[Item]:
        """The items in their order, as they come."""
        while (item := self._taken.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            self._room.release()

    def stop(self) -> None:
        """Take no more items, and send no more."""
        self._stopped.set()
        self._room.release()  # lets a feeder go that waits for room
        self._images.put(None)
        self._sender.join()

    def _take(self) -> None:
        try:
            for item in self._source:
                self._room.acquire()
                if self._stopped.is_set():
                    return
                self._taken.put(item)
                if isinstance(item, ImageRef):
                    self._images.put(item)
            self._taken.put(None)
        except BaseException as error:  # whatever it is, it belongs to who asked for the outcomes
            self._taken.put(error)

    def _send(self) -> None:
        from ray.exceptions import RayError

        number = 0
        while (image := self._images.get()) is not None and not self._stopped.is_set():
            refs = (image, *_waiting(self._images, _BATCH - 1))
            try:
                self._queue.put(to_table(Batch(number, refs)))
            except RayError:  # then the data set fails too, and that is heard of
                return
            number += len(refs)


def _waiting(images: SimpleQueue[ImageRef | None], most: int) -> Iterator[ImageRef]:
    """Those that have come already."""
    for _ in range(most):
        try:
            image = images.get_nowait()
        except Empty:
            return
        if image is None:
            images.put(None)  # for who asked
            return
        yield image


def _hand_out(queue: Queue) -> Callable[[pyarrow.Table], Iterator[pyarrow.Table]]:
    """The task that the data set begins with: the batches in the queue, for as long as the run goes."""

    def batches(table: pyarrow.Table) -> Iterator[pyarrow.Table]:
        if queue.get_nowait() != _BEGIN:
            raise RuntimeError("Ray ran the task anew that hands out images, as it does when a machine is lost")
        while True:
            yield queue.get()

    return batches


def _data_set(queue: Queue, plan: Plan, actors: int, gpus: float) -> Dataset:
    import ray.data

    return (
        ray.data.from_items([0])
        # Other resources than in the second step, or Ray Data would run both in the first actor.
        .map_batches(_hand_out(queue), batch_size=1, batch_format="pyarrow", num_cpus=0)
        .map_batches(
            LabelActor,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=_AHEAD),
            fn_constructor_args=(plan,),
            num_cpus=1,
            num_gpus=gpus,
        )
    )


def _answers(data: Dataset) -> Generator[Answer, None, None]:
    for table in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from_table(table)


class _Messages:
    """Stands for stdout while Ray runs, which prints messages there: text goes to stderr.

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
        with _environment():
            ray.init(address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if not address:
            raise
        raise TipssegError(
            f"cannot join the Ray cluster at {address}: {str(error).splitlines()[0]}",
            "RAY_ADDRESS says where it is, and RAY_AUTH_MODE=token that it asks for a token; without RAY_ADDRESS, Ray starts here.",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)  # Ray takes it
    try:
        yield not address
    finally:
        ray.shutdown()


def _check_resources(actors: int, gpus: float) -> None:
    """Raise UsageError for actors that would wait forever; a cluster of others may well grow."""
    import ray

    there = ray.cluster_resources()
    for name, each in (("CPU", 1), ("GPU", gpus)):
        has = there.get(name, 0)
        if actors * each > has:
            raise UsageError(
                f"--actors {actors} with --gpus {gpus:g} needs {actors * each:g} {name}s, and this machine has {has:g}",
                "Give fewer actors, or join a cluster with the environment variable RAY_ADDRESS.",
            )


@contextmanager
def _environment() -> Iterator[None]:
    added = [name for name in _ENVIRONMENT if name not in os.environ]
    os.environ.update({name: _ENVIRONMENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _data_settings() -> Iterator[None]:
    """Have _DATA_SETTINGS; some releases of Ray Data look at them when a data set is made, some when it runs."""
    import ray.data

    context = ray.data.DataContext.get_current()
    before: dict[str, Any] = {name: getattr(context, name) for name in _DATA_SETTINGS}
    for name, value in _DATA_SETTINGS.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


@contextmanager
def _quiet(level: int) -> Iterator[None]:
    """Ray Data says less than that on the terminal."""
    import ray.data  # makes the handlers

    handlers = [
        each for each in logging.getLogger(ray.data.__name__).handlers if isinstance(each, logging.StreamHandler)
    ]
    before = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(level)
    try:
        yield
    finally:
        for handler, was in zip(handlers, before, strict=True):
            handler.setLevel(was)
