"""What an output folder holds, whether or not its run has ended: its classes, its images, its failures. Nothing is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from tipsseg.errors import InputError
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Rows
from tipsseg.store.classes_file import CLASSES_FILE, read_classes
from tipsseg.store.error_log import read_reasons
from tipsseg.store.manifest import Manifest, ManifestEntry
from tipsseg.store.reader import (
    OTHER_CLASSES,
    RUN_AGAIN,
    FinishedRun,
    check_hint,
    check_manifest,
    other_version,
    unreadable,
)
from tipsseg.store.run_record import RUN_FILE, read_run, run_context
from tipsseg.store.shards import state_folders
from tipsseg.store.spec import RunInfo
from tipsseg.store.stored_image import RowStream, label_sources
from tipsseg.store.writing import RunContext, rows_file
from tipsseg.types import LabelClass
from tipsseg.util.files import is_folder
from tipsseg.util.record_paths import actual_name, actual_path


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a run.

    Attributes:
        entry: Its line in the manifest.
        path: Where the image is.
        rows: Its rows, by format, in formats whose labels can be read back from rows alone.
        context: Of its run.
    """

    entry: ManifestEntry
    path: Path
    rows: Mapping[str, Rows]
    context: RunContext


class Source:
    """The run in an output folder, or its shards.

    Attributes:
        output: The output folder.
        classes: The classes of the run.
        ended: Whether the run, or each of the shards that are there, has ended.
        digest: Of all that decides the labels.
    """

    def __init__(self, output: Path, images: Path | None, stack: ExitStack) -> None:
        """Open it; `stack` closes it.

        Args:
            output: The output folder.
            images: The folder that the images' names begin at; None: where the images were.
            stack: Closes the files.

        Raises:
            InputError: For a folder that is no output folder, or whose records are not as a run writes them or lost images.
            OutputError: For a manifest that cannot be read.
        """
        if not is_folder(output):
            raise InputError(f"{output}: no such folder", "Give an output folder of tipsseg label.")
        states = [output] if os.path.lexists(output / RUN_FILE) else state_folders(output)
        if not states:
            raise InputError(f"{output}: no {RUN_FILE} in it", "Give an output folder of tipsseg label.")
        self.output = output
        self._images = images
        self._runs = [_Run(_read_run(state, output), stack) for state in states]
        first = self._runs[0].info
        for run in self._runs:
            if run.info.digest != first.digest:
                raise InputError(f"{output}: its shards were labelled with different settings", check_hint(output))
        self.classes = _read_classes(output, first)
        self.ended = all(run.info.ended is not None for run in self._runs)
        self.digest = first.digest

    def facts(self) -> Iterator[str]:
        """What is worth knowing of the run, or of its first shard, a sentence each."""
        info, number = self._runs[0].info, len(self._runs)
        if number > 1:
            yield f"{number} shards, of which this is the first:"
        version = "" if info.noted is None else f" of tipsseg {info.noted.version}"
        yield f"Model {info.spec.model}, {info.dtype}{f' on {info.device}' if info.device else ''}; labels{version}."
        if info.noted is not None:
            yield f"Command: {info.noted.command}"
        if info.started is not None:
            ended = "it has not ended" if info.ended is None else f"ended {info.ended:%Y-%m-%d %H:%M}"
            yield f"Begun {info.started:%Y-%m-%d %H:%M} (UTC), {ended}."

    def __len__(self) -> int:
        return sum(len(run.manifest) for run in self._runs)

    def items(self) -> Iterator[Item]:
        """The labelled images, shard after shard in the order of their names. Raises OutputError."""
        for run in self._runs:
            for entry in run.manifest.entries():
                rows = {name: stream.of(entry.image) for name, stream in run.streams.items() if name in entry.formats}
                yield Item(entry, self._path(entry), rows, run.context)

    def entries(self) -> Iterator[Item]:
        """The same without their rows, which takes less time. Raises OutputError."""
        for run in self._runs:
            for entry in run.manifest.entries():
                yield Item(entry, self._path(entry), {}, run.context)

    def failures(self) -> Iterator[tuple[str, Path, str]]:
        """The images that failed and are not labelled: name, path and reason. Raises OutputError."""
        for run in self._runs:
            for image, (path, reason) in read_reasons(run.info.spec.state).items():
                if image not in run.manifest:
                    moved = None if self._images is None else self._images / actual_name(image)
                    yield image, moved or actual_path(Path(), path), reason

    def _path(self, entry: ManifestEntry) -> Path:
        return actual_path(Path(), entry.path) if self._images is None else actual_path(self._images, entry.image)


class _Run:
    """One run, or a shard of one."""

    def __init__(self, info: RunInfo, stack: ExitStack) -> None:
        self.info = info
        self.manifest = stack.enter_context(closing(Manifest(info.spec.state)))
        if self.manifest.unreadable or (info.ended is not None and len(self.manifest) < info.images):
            check_manifest(FinishedRun(info, ()))
        self.context = run_context(info)
        self.context.ownership.load(info.files, self.manifest.records)
        files = {name: rows_file(name, self.context) for name in label_sources()}
        self.streams = {
            name: RowStream(file, self.manifest.holding(name))
            for name, file in files.items()
            if file is not None and FORMATS[name].folder is None and file.path.exists()
        }


def _read_run(state: Path, output: Path) -> RunInfo:
    path = state / RUN_FILE
    try:
        return read_run(state)
    except OSError as error:
        raise unreadable(path, error, output) from error
    except ValueError as error:
        raise other_version(path, error, output) from error


def _read_classes(output: Path, info: RunInfo) -> tuple[LabelClass, ...]:
    path = output / CLASSES_FILE
    try:
        classes = read_classes(output)
    except OSError as error:
        raise InputError(f"{path}: it cannot be read", RUN_AGAIN) from error
    except ValueError as error:
        raise other_version(path, error, output) from error
    if {each.id: each.name for each in classes} != info.names:
        raise InputError(f"{path}: not the classes of {RUN_FILE}", OTHER_CLASSES)
    return classes
