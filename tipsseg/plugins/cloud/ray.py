"""Label the shards of a run as tasks of a Ray cluster.

This process finds the images, settles the folder and prints; it does not import torch. A task labels a shard, on a file system that
all machines share. Ray starts a task again if its process dies, and the shard resumes.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import signal
import socket
import sys
import threading
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from tipsseg._version import __version__
from tipsseg.errors import DeviceError, TipssegError, UsageError, Words
from tipsseg.folder.find import Images
from tipsseg.folder.folder import OutputFolder, open_folder
from tipsseg.folder.labels import RunContext
from tipsseg.folder.notes import Reporter
from tipsseg.folder.results import Derived, ImageResult, Labelled, Triaged
from tipsseg.folder.spec import RunInfo
from tipsseg.images.decoders import silence_decoders
from tipsseg.labelling.images import EngineMaker, label_images, local_engine
from tipsseg.options import default_jobs
from tipsseg.options.values import Shard, index_of
from tipsseg.say import Progress, Silence
from tipsseg.types import Failed, ImageRef
from tipsseg.util.text import first_line, pluralize

#: Shards per task that runs at a time, so that a slow machine costs little.
_SHARDS = 4

#: The number of times that Ray starts a task again.
_RETRIES = 3

#: Seconds to wait for an answer of a cluster.
_ANSWER = 10.0

#: CPUs per task on machines without GPUs; Ray limits the threads of a task to them.
_CPUS = 4


def ray_engine_maker(address: str, *, listed: bool) -> EngineMaker:
    """Return a function that makes the engine of a run on the cluster at an address.

    Raise UsageError if Ray is not installed, or if the images are a list on stdin.
    """
    if listed:
        raise UsageError(
            Words("{ray} requires images that can be listed again, not a list on stdin"),
            "Pass images or folders. To label parts of the list: tipsseg label - --shard 1/8 < LIST",
        )
    if find_spec("ray") is None:
        raise UsageError(Words("{ray} requires the package ray"), "Install it: pip install 'tipsseg[ray]'")
    return partial(_ray_engine, address)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """The work of a task.

    Attributes:
        info: The run, with its shard.
        images: The images of the shard; for the model, one of all images.
        directory: The working directory of the driver, which relative paths refer to.
        version: The driver's version of tipsseg.
    """

    info: RunInfo
    images: tuple[ImageRef, ...]
    directory: Path
    version: str


class RayEngine:
    """Label images as shards on a Ray cluster.

    Attributes:
        info: The run, with the device and the dtype that the first task chose for all others.
        batch_size: None: each task has its own.
    """

    batch_size = None

    def __init__(self, folder: OutputFolder, progress: Progress, images: Sequence[ImageRef]) -> None:
        """Divide the run by the size of the cluster, and load the model in a task."""
        import ray

        self._folder, self._progress = folder, progress
        kind = folder.info.spec.device.partition(":")[0]  # Ray numbers the GPUs of each task from 0
        gpus, cpus = (int(ray.cluster_resources().get(name, 0)) for name in ("GPU", "CPU"))
        if kind == "cuda" and not gpus:
            raise DeviceError(kind, "the Ray cluster has no GPU", Words("Use {device}=cpu."))
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if gpus and kind in ("auto", "cuda"):
            # A GPU needs the cores that decode its images: its share of the machine's, the least of all machines.
            each = min(int(node.get("CPU", 0) // node["GPU"]) for node in nodes if node.get("GPU"))
            self._resources, tasks = {"num_cpus": max(each, 1), "num_gpus": 1}, gpus
        else:
            each = min([_CPUS, *(int(node["CPU"]) for node in nodes if node.get("CPU"))])
            self._resources, tasks = {"num_cpus": each}, max(cpus // each, 1)
        self._count = _SHARDS * tasks
        progress.note("cloud.ray_tasks", tasks=pluralize(tasks, "task"), shards=pluralize(self._count, "shard"))
        info = replace(folder.info, spec=folder.info.spec.changed(device=kind))
        with _errors():
            started: RunInfo | TipssegError = ray.get(self._submit(_start, info, images[:1], folder.context))
        if isinstance(started, TipssegError):
            raise started
        self.info = replace(started, spec=info.spec)

    def results(self, items: Iterable[Triaged]) -> Generator[ImageResult, None, None]:
        """Yield the results of images that are done or fail, then of the other images once their shards are joined."""
        folder, parts = self._folder, defaultdict[int, list[ImageRef]](list)
        for item in items:
            if isinstance(item, ImageRef):
                parts[index_of(item.name, self._count)].append(item)
            else:
                yield item
        info, lock, failed = folder.info, folder.cache.lock, set[str]()
        spec = info.spec.changed(
            device=info.device.partition(":")[0],
            dtype=info.dtype,
            overwrite=False,
            replace_edited=False,
            formats_given=True,
        )  # a task that is started again resumes
        infos = {index: replace(info, spec=spec.changed(shard=Shard(index, self._count))) for index in sorted(parts)}
        assert lock is not None
        folder.cache.commit()
        lock.give_back()  # each task has a lock of its own
        try:
            for result in self._run([self._submit(_label, infos[index], parts[index]) for index in infos]):
                failed.add(result.ref.name)
                yield result
        finally:
            lock.take()
            folder.cache.absorb()
            folder.look()
        for ref in (ref for index in infos for ref in parts[index] if ref.name not in failed):
            entry = folder.find(ref)
            if entry is not None:
                yield Labelled(ref, entry, None, Derived())

    def _submit(self, function: Any, info: RunInfo, refs: Sequence[ImageRef], *others: object) -> Any:
        """Start a task for images, and return what Ray knows it by."""
        import ray

        jobs = info.spec.jobs if info.spec.jobs != default_jobs() else self._resources["num_cpus"]  # of this machine
        info = replace(info, spec=replace(info.spec, jobs=jobs))  # its task lists the regions and labels itself
        job = _Job(info=info, images=tuple(refs), directory=Path.cwd(), version=__version__)
        task = ray.remote(function).options(max_retries=_RETRIES, **self._resources)
        return task.remote(job, *others)

    def _run(self, running: list[Any]) -> Iterator[Failed]:
        """Wait for tasks, count their images, and yield those that fail. Raise TipssegError if the run cannot continue."""
        import ray

        try:
            while running:
                with _errors():
                    first: Any = ray.wait(running)[0][0]
                    running.remove(first)
                    reference = next(first, None)
                    if reference is None:
                        continue
                    running.append(first)  # at the end, so that none waits for ever
                    result: Failed | TipssegError | None = ray.get(reference)
                if isinstance(result, TipssegError):
                    raise result
                if result is None:
                    self._progress.advance()
                else:
                    yield result
        finally:
            for task in running:
                with suppress(Exception):  # its machine may be down
                    ray.cancel(task)


@contextmanager
def _ray_engine(
    address: str, folder: OutputFolder, progress: Progress, images: Sequence[ImageRef]
) -> Iterator[RayEngine]:
    """Connect to a cluster, and make the engine of a run; a Ray that was started for this run ends with it."""
    with redirect_stdout(_Messages(sys.stdout)), _connect(address):
        yield RayEngine(folder, progress, images)


# ---- tasks: they return a TipssegError instead of raising it, because Ray would wrap it and lose its attributes ----


def _start(job: _Job, context: RunContext) -> RunInfo | TipssegError:
    """Load the model, and return the run with its device and dtype."""
    from tipsseg.labelling.local import LocalEngine, load_for

    try:
        _prepare(job)
        loaded = load_for(job.info, lambda _: None, quiet=True, images=job.images)
        return LocalEngine(loaded, context, lambda _: None).info
    except TipssegError as error:
        return error


def _label(job: _Job) -> Iterator[Failed | TipssegError | None]:
    """Label a shard. Yield an item per image: its failure, or None. An error ends the run, and is the last item."""
    try:
        _prepare(job)
        images = Images(job.images, Path(job.info.image_root or "."))
        with (
            open_folder(job.info.spec) as folder,
            closing(label_images(folder, images, local_engine, Reporter(Silence()))) as results,
        ):
            for result in results:
                yield result if isinstance(result, Failed) else None
    except TipssegError as error:
        yield error


def _prepare(job: _Job) -> None:
    """Make messages and relative paths the driver's. Raise UsageError if this machine differs from the driver's."""
    silence_decoders()  # this process only serves the run
    if job.version != __version__:
        raise UsageError(
            f"{platform.node()} of the Ray cluster has tipsseg {__version__}, but this machine has {job.version}",
            "Install the same version on all machines of the cluster.",
        )
    try:
        os.chdir(job.directory)
    except OSError as error:
        raise UsageError(
            f"{platform.node()} of the Ray cluster cannot open {job.directory}: {error.strerror or error}",
            "Run the command in a folder that all machines share; images and output must be shared too.",
        ) from error


# ---- the cluster ----


class _Messages:
    """A stdout that sends text to stderr, as Ray prints there. Results are written to `buffer`, which is still stdout's."""

    def __init__(self, stdout: TextIO) -> None:
        self.buffer, self.flush, self.isatty = stdout.buffer, stdout.flush, stdout.isatty

    def write(self, text: str) -> int:
        return sys.stderr.write(text)


@contextmanager
def _errors() -> Iterator[None]:
    """Raise TipssegError if Ray fails, or gives up a task whose processes died."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError:  # a bug in a task's code
        raise
    except RayError as error:
        raise TipssegError(
            f"Ray gave up a task: {first_line(error)}",
            "Its machine may have run out of memory. Run the same command to resume.",
        ) from error


@contextmanager
def _connect(address: str) -> Iterator[None]:
    """Connect to a Ray cluster. "auto" is the cluster of RAY_ADDRESS, one on this machine, or a new one on this machine."""
    import ray

    if ray.is_initialized():  # by a program that imports tipsseg
        yield
        return
    address = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if re.fullmatch(r"[^/]+:[0-9]+", address):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _ANSWER).close()  # Ray would wait for minutes
        except (OSError, OverflowError) as error:
            raise TipssegError(
                f"no Ray cluster answers at {address}: {error}",
                "Check the host, the port and the variable RAY_ADDRESS; `ray status` on the head prints them.",
            ) from error
    on_term = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            None if address == "auto" else address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise TipssegError(
            f"cannot join the Ray cluster at {address}: {first_line(error)}",
            "Check the address, and set RAY_AUTH_MODE=token if the cluster requires a token.",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)  # ray.init replaces the handler
    try:
        yield
    finally:
        ray.shutdown()
