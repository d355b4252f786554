"""Open the run in an output folder to read it, also in a folder that cannot be written.

    with open_run(output) as run:                     a finished run
        for image in run.images():
            labels = image.current().labels
    with open_runs(output, ended=False) as runs:      a run, or the shards of one, finished or not

Invalid records raise RecordError, which names the file, the fault and a hint.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError, InputError, RecordError
from tipsseg.images.access import below
from tipsseg.images.decoding import ImageReader
from tipsseg.options import MAX_PIXELS
from tipsseg.options.values import Shard
from tipsseg.run.entry import Entry, FileRow
from tipsseg.run.files import Files, digest_of
from tipsseg.run.labels import Current, described_labels, label_rows, mask_labels, read_current
from tipsseg.run.lock import is_locked
from tipsseg.run.record import RUN_FILE, run_context, stored_run
from tipsseg.run.resume import is_edited
from tipsseg.run.shards import shards_in, state_folder
from tipsseg.run.spec import RunInfo, check_hint
from tipsseg.run.state import EXPORTS, STATE_FILE, State
from tipsseg.types import ImageRef, LabelClass, printable_path
from tipsseg.util.files import actual_name, actual_path, is_folder
from tipsseg.util.text import shell_word

#: The hint for an interrupted run.
RUN_AGAIN = "Run the original command again; finished images are kept."

_NAME_FOLDER = "Pass an output folder of tipsseg label."


@dataclass(frozen=True, eq=False)
class RunImage:
    """A labelled image of a run. Thread-safe.

    Attributes:
        entry: Its record.
        rows: Its files by place.
        run: The run.
    """

    entry: Entry
    rows: Mapping[str, FileRow]
    run: Run

    def path(self, images: Path | None) -> Path:
        """Return the path of the image in the folder `images`, or the recorded path if `images` is None."""
        return actual_path(Path(), self.entry.path) if images is None else below(images, self.entry.image)

    def ref(self, images: Path | None) -> ImageRef:
        """Return the image as an input; see `path`."""
        return ImageRef(self.path(images), PurePosixPath(actual_name(self.entry.image)))

    @cached_property
    def label_files(self) -> list[FileRow]:
        return label_rows(self.rows, self.run.context)

    @cached_property
    def edited(self) -> bool:
        """True if a person changed the labels in place, and no command recorded that yet."""
        return is_edited(self.entry, self.label_files, self.run.files)

    @property
    def corrected(self) -> bool:
        """True if the labels are a person's."""
        return self.entry.corrected or self.edited

    @property
    def mask(self) -> Path:
        """The file of the labels. Raise ImageError if it is missing."""
        path = next((self.run.files.path(row.place) for row in self.label_files), None)
        if path is None or not os.path.lexists(path):
            what = "corrected mask" if self.entry.corrected else "mask"
            raise ImageError(path or self.run.output, f"the {what} of {self.entry.image} is missing", self.run.hint)
        return path

    def digest(self) -> str:
        """Return a sha256 that changes with the labels on disk, whatever else their mask says; "" if it is missing."""
        whole = next((digest_of(self.run.files.path(row.place)) for row in self.label_files), "")
        if not whole or self.run.info.spec.is_raster:
            return whole
        with suppress(ImageError):
            found = mask_labels(self.mask, self.entry.numbers.size)
            labels, objects = found or described_labels(self.current().labels)
            return hashlib.sha256(labels.encode() + objects).hexdigest()
        return whole

    def current(self) -> Current:
        """Read the labels. Raise ImageError if they are missing or invalid."""
        _ = self.mask
        return read_current(self.run.context, self.entry, dict(self.rows), edited=self.edited)

    def file(self, name: str) -> Path | None:
        """Return the file of a format, by its key; None if it is not recorded, or is missing."""
        row = next((row for row in self.rows.values() if row.name == name), None)
        path = None if row is None else self.run.files.path(row.place)
        return path if path is not None and os.path.lexists(path) else None


class Run:
    """A recorded run, or a shard of one.

    Attributes:
        info: Its settings.
        context: The facts for format writers.
        state: The record.
        files: Its files.
    """

    def __init__(self, info: RunInfo, state: State) -> None:
        self.info, self.state = info, state
        self.context, self.files = run_context(info), Files(info.spec.folder)

    @property
    def output(self) -> Path:
        return self.info.spec.folder

    @property
    def reader(self) -> ImageReader:
        return self.info.spec.reader

    @property
    def hint(self) -> str:
        return check_hint(self.output)

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        return self.context.classes

    @property
    def shard(self) -> Shard | None:
        return self.info.spec.shard

    def __len__(self) -> int:
        return len(self.state)

    def __contains__(self, image: object) -> bool:
        return image in self.state

    def former(self) -> dict[str, list[str]]:
        """Return the names that images had before, by their name of now: those that no other image has or had."""
        before = self.state.former
        times = Counter(old for names in before.values() for old in names)
        found = {name: [old for old in names if times[old] == 1 and old not in self] for name, names in before.items()}
        return {name: names for name, names in found.items() if names and name in self}

    def now(self, name: str) -> str | None:
        """Return the name that an image has now; None if no image has or had it."""
        return name if name in self else next((new for new, old in self.former().items() if name in old), None)

    def image(self, name: str) -> RunImage:
        """Return an image. Raise KeyError for an unknown name."""
        entry = self.state.get(name)
        if entry is None:
            raise KeyError(name)
        return RunImage(entry, self.state.files(name), self)

    def images(self) -> Iterator[RunImage]:
        """Yield the images, sorted by name."""
        return (RunImage(entry, rows, self) for entry, rows in self.state.images())

    def failures(self) -> Iterator[tuple[str, Path, str]]:
        """Yield name, path and reason of each failed image that has no labels."""
        for each in self.state.failures():
            if each.image not in self:
                yield each.image, each.ref.path, each.reason


def refuse_raster(run: RunInfo) -> None:
    """Raise InputError for a run of rasters, whose labels may be larger than memory."""
    if run.spec.is_raster:
        raise InputError(
            f"{run.spec.output}: this command does not read the labels of rasters",
            "Open the files in a GIS. For other formats, such as png, label the rasters into another folder.",
        )


@contextmanager
def open_run(output: Path, *, ended: bool = True, max_pixels: int = MAX_PIXELS) -> Iterator[Run]:
    """Open the run in an output folder. Raise as `open_runs` does, and RecordError if the folder holds shards."""
    with find_run(output, ended=ended, max_pixels=max_pixels) as run:
        if run is None:
            raise no_run_error(output)
        yield run


@contextmanager
def find_run(folder: Path, *, ended: bool = True, max_pixels: int = MAX_PIXELS) -> Iterator[Run | None]:
    """Open the run in a folder as `open_run` does; None for a folder without a record."""
    with ExitStack() as stack:
        state = _open_state(folder, stack, ended=ended)
        refuse_shards(state)
        yield None if state.meta("run") is None else Run(require_run(state, ended=ended, max_pixels=max_pixels), state)


@contextmanager
def open_runs(output: Path, *, ended: bool = True, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Run, ...]]:
    """Open the run in an output folder, or its shards.

    Args:
        output: The output folder.
        ended: Reject runs that are in progress or were interrupted.
        max_pixels: Reject images with more pixels.

    Raises:
        RecordError: The folder is not an output folder, the run is not finished, or its record is damaged or missing.
    """
    with ExitStack() as stack:
        states = [_open_state(output, stack, ended=ended)]
        if shards := shards_without_run(states[0]):
            states = [_open_state(state_folder(output, shard), stack, ended=ended) for shard in shards]
        yield tuple(Run(require_run(state, ended=ended, max_pixels=max_pixels), state) for state in states)


@contextmanager
def open_folders(folders: Iterable[Path]) -> Iterator[tuple[Run, ...]]:
    """Open the finished runs in output folders and in folders of shards; leave out output folders that only hold shards.

    Raise as `open_runs` does.
    """
    with ExitStack() as stack:
        states = [_open_state(folder, stack, ended=True) for folder in folders]
        yield tuple(Run(require_run(state), state) for state in states if not shards_without_run(state))


def _open_state(folder: Path, stack: ExitStack, *, ended: bool) -> State:
    """Open the record of a folder, until the stack ends. Raise RecordError if that fails."""
    if not is_folder(folder):
        raise RecordError(folder, "no such folder", _NAME_FOLDER)
    refuse_lost_record(folder)
    if ended and is_locked(folder):
        raise RecordError(folder, "a run is in progress", "Wait for it to finish.")
    return stack.enter_context(closing(State(folder)))


def refuse_lost_record(folder: Path) -> None:
    """Raise RecordError if a folder has exports, but not the record that they were written from."""
    if os.path.lexists(State.file(folder)) or not any(os.path.lexists(folder / name) for name in EXPORTS):
        return
    word, new = shell_word(str(folder)), shell_word(f"{folder}-2")
    error = RecordError(folder, f"its record, {STATE_FILE}, is missing", "Rebuild it, or start again:")
    again = f"tipsseg label IMAGES --classes CLASSES -o {new}"
    if os.path.lexists(run := folder / RUN_FILE):
        again = f"tipsseg label IMAGES --from {shell_word(str(run))} -o {new}"
    error.commands = (
        f"tipsseg check {word} --restore",
        again,
        f"tipsseg correct {new} --from {shell_word(str(folder / 'masks'))}",
    )
    raise error


def shards_without_run(state: State) -> list[Shard]:
    """Return the shards in a folder that has no run of its own; none if it has one."""
    return shards_in(state.folder) if state.meta("run") is None else []


def refuse_shards(state: State) -> None:
    """Raise RecordError if a folder has shards, but no run of its own."""
    if shards_without_run(state):
        folder = shell_word(str(state.folder))
        raise RecordError(state.folder, "it holds shards", f"Join them first: tipsseg merge {folder} -o {folder}")


def refuse_other_settings(runs: Sequence[Run]) -> None:
    """Raise RecordError for shards that were labelled with different settings."""
    if any(run.info.digest != runs[0].info.digest for run in runs):
        output = runs[0].info.spec.output
        raise RecordError(output, "its shards were labelled with different settings", check_hint(output))


def require_run(state: State, *, ended: bool = True, max_pixels: int = MAX_PIXELS) -> RunInfo:
    """Return the run that a record holds; no record has the limit `max_pixels` of its reader.

    Raise RecordError if there is none, or with `ended` if it was interrupted.
    """
    info = stored_run(state)
    if info is None:
        raise no_run_error(state.folder)
    if ended and info.ended is None:
        raise RecordError(state.folder, "the run was interrupted", RUN_AGAIN)
    return replace(info, spec=replace(info.spec, max_pixels=max_pixels))


def no_run_error(folder: Path) -> RecordError:
    return RecordError(folder, "not an output folder of tipsseg label", _NAME_FOLDER)


def find_only(entries: Iterable[Entry], paths: Iterable[Path], images: Path | None) -> tuple[set[str], list[Path]]:
    """Return the names of the images at these paths, and the paths that match no labelled image.

    Args:
        entries: The labelled images.
        paths: Current paths of images, their paths when they were labelled, or their names in the run.
        images: The folder of the images, if they have moved.
    """
    by_path: dict[str, str] = {}
    for entry in entries:
        by_path.setdefault(entry.image, entry.image)
        by_path[entry.path] = entry.image
        if images is not None:
            by_path[_absolute(images / actual_name(entry.image))] = entry.image
    names: set[str] = set()
    unknown: list[Path] = []
    for path in paths:
        # Try the absolute path first: a name in the run may also be another file below the working directory.
        name = by_path.get(_absolute(path)) or by_path.get(printable_path(path))
        if name is None:
            unknown.append(path)
        else:
            names.add(name)
    return names, unknown


def unlabelled_error(path: Path, output: Path) -> ImageError:
    return ImageError(path, f"not labelled in {output}", "Remove it from the list in argument `only`.")


def _absolute(path: Path) -> str:
    return printable_path(Path(os.path.abspath(path)))  # noqa: PTH100  must not resolve links, as in the manifest
