"""Engines label the images of a run: the protocol, and how the engine of this process is made."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from tipsseg.errors import OutputError
from tipsseg.run.folder import OutputFolder
from tipsseg.run.results import ImageResult, Left
from tipsseg.run.shards import shards_in
from tipsseg.run.spec import RunInfo
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.engine.loading import load_for
from tipsseg.types import ImageRef
from tipsseg.util.printable import shell_word


class Engine(Protocol):
    """Label images and write their per-image files."""

    @property
    def info(self) -> RunInfo:
        """The run, with its device, dtype and vocabulary."""

    @property
    def batch_size(self) -> int | None:
        """The number of windows in a batch, which shrinks if memory is short; None if unknown."""

    def results(self, items: Iterable[Left]) -> Generator[ImageResult, None, None]:
        """Yield the result of each image. Raises TipssegError if the run cannot continue."""


#: A function that makes the engine of a run, once its output folder is open and images are to be labelled.
EngineMaker = Callable[[OutputFolder, Progress, Sequence[ImageRef]], AbstractContextManager[Engine]]


@contextmanager
def local_engine(folder: OutputFolder, progress: Progress, images: Sequence[ImageRef]) -> Iterator[Engine]:
    """Load the model in this process; the first images help to choose the device if it is "auto", see `load_for`.

    Raises:
        OutputError: The folder holds shards, and the run is not one of them.
        TipssegError: The run cannot continue.
    """
    if folder.info.spec.shard is None and shards_in(folder.path):
        word = shell_word(str(folder.path))
        raise OutputError(
            folder.path,
            "it holds shards",
            f"Finish them by the command that began them, then join them: tipsseg merge {word} -o {word}",
        )
    from tipsseg.runs.engine.local import LocalEngine

    loaded = load_for(folder.info, progress.note, quiet=progress.quiet, images=images)
    yield LocalEngine(loaded, folder.context, progress.note)
