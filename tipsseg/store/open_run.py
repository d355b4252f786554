"""Open the run of an output folder, and read its records and images.

    with open_run(output) as run:                     the run of an output folder, which has ended
        for image in run.images():
            labels = image.labels()
    with open_runs(output, ended=False) as runs:      the run of an output folder, or its shards; they may be at work

Faults of the records raise RecordError, with the file, the fault and a hint.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import RecordError
from tipsseg.formats import FORMATS
from tipsseg.formats.classes_file import CLASSES_FILE, read_classes
from tipsseg.formats.problem import class_faults
from tipsseg.options import MAX_PIXELS
from tipsseg.options.shard import Shard
from tipsseg.store.lock import finish_command, is_begun, is_locked, is_unfinished
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, is_placed
from tipsseg.store.run_record import OTHER_VERSION, RUN_FILE, read_record, run_context
from tipsseg.store.shards import shards_in, state_folder
from tipsseg.store.spec import RunInfo, check_hint
from tipsseg.store.state import State
from tipsseg.store.stored_image import Mask, RunImage
from tipsseg.types import LabelClass
from tipsseg.util.files import describe_error, is_folder
from tipsseg.util.json_values import short
from tipsseg.util.printable import join_first, shell_word

#: The hint for a run that was broken off.
RUN_AGAIN = "Run the command that made it again; what is done there stays."

#: The hint if ids have another meaning in classes.json than in run.json.
OTHER_CLASSES = f"Restore {CLASSES_FILE}. Or remove it and run the command that labelled the images again."

_NAME_FOLDER = "Name an output folder of tipsseg label."

#: The fault of a missing folder, and the hint.
NO_FOLDER = "no such folder", _NAME_FOLDER


class Run:
    """A recorded run, or a shard of one.

    Attributes:
        info: Content of its run.json.
        context: Context of the formats, with the classes of classes.json.
        records: Its images.
        max_pixels: Larger images are refused.
    """

    def __init__(self, info: RunInfo, classes: tuple[LabelClass, ...], records: State, max_pixels: int) -> None:
        self.info = info
        self.context = replace(run_context(info), classes=classes)
        self.context.ownership.load(info.files, records)
        self.records = records
        self.max_pixels = max_pixels

    @property
    def output(self) -> Path:
        return self.info.spec.output

    @property
    def state(self) -> Path:
        return self.info.spec.state

    @property
    def shard(self) -> Shard | None:
        return self.info.spec.shard

    @property
    def formats(self) -> tuple[str, ...]:
        return self.info.spec.formats

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        return self.context.classes

    def __len__(self) -> int:
        return len(self.records)

    def __contains__(self, image: object) -> bool:
        return image in self.records

    def entries(self) -> Iterator[ManifestEntry]:
        """Yield the entries of the images, in the order of the names.

        Raises RecordError for files at places that no version uses: anybody may have written a manifest that was taken over.
        """
        for entry in self.records.entries():
            if self.records.taken_over and not is_placed(entry, self.context.files):
                reason = f"the files of {entry.image} are not where tipsseg puts them"
                raise RecordError(self.state / MANIFEST_FILE, reason, check_hint(self.output))
            yield entry

    def entry(self, image: str) -> ManifestEntry:
        """Return the entry of an image. Raises KeyError for an unknown image."""
        entry = self.records.get(image)
        if entry is None:
            raise KeyError(image)
        return entry

    def image(self, entry: ManifestEntry) -> RunImage:
        return RunImage(entry, self)

    def images(self) -> Iterator[RunImage]:
        """Yield the images, in the order of their names."""
        return map(self.image, self.entries())

    def corrections(self) -> Iterator[tuple[RunImage, Mask | None]]:
        """Yield the images, each with its edited mask or None; see `RunImage.correction`."""
        return ((image, image.correction()) for image in self.images())

    def failures(self) -> Iterator[tuple[str, Path, str]]:
        """Yield the images that failed and are not labelled: name, path and reason. Raises OutputError."""
        for each in self.records.failures():
            if each.image not in self:
                yield each.image, each.ref.path, each.reason


@contextmanager
def open_run(output: Path, *, held: bool = False, max_pixels: int = MAX_PIXELS) -> Iterator[Run]:
    """Open the run of an output folder. Raises as `open_runs` does, also for a folder that holds shards."""
    if is_folder(output) and not os.path.lexists(output / RUN_FILE) and shards_in(output):
        raise RecordError(output, "it holds shards", join_hint(output))
    with open_runs(output, own=output if held else None, max_pixels=max_pixels) as (run,):
        yield run


@contextmanager
def open_runs(
    output: Path, *, ended: bool = True, own: Path | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[Run, ...]]:
    """Open the run of an output folder, or its shards.

    Args:
        output: The output folder.
        ended: Whether runs are refused that are at work, or were broken off.
        own: The folder whose lock the caller has.
        max_pixels: Larger images are refused.

    Raises:
        RecordError: The folder is not an output folder, the run has not ended, or its records are damaged or lost images.
        OutputError: The manifest cannot be read.
    """
    with ExitStack() as stack:
        shards: list[Shard | None] = [*_shards_of(output)]
        yield tuple(
            _open(output, shard, stack, ended=ended, own=own, max_pixels=max_pixels) for shard in shards or [None]
        )


@contextmanager
def open_shards(output: Path) -> Iterator[tuple[Run, ...]]:
    """Open the shards of an output folder, even beside a whole run. Raises as `open_runs` does."""
    with ExitStack() as stack:
        shards = shards_in(output)
        yield tuple(_open(output, each, stack, ended=True, own=None, max_pixels=MAX_PIXELS) for each in shards)


def refuse_other_settings(runs: Sequence[Run]) -> None:
    """Raise RecordError for shards that were labelled with different settings."""
    first = runs[0].info.digest
    if any(run.info.digest != first for run in runs):
        output = runs[0].output
        raise RecordError(output, "its shards were labelled with different settings", check_hint(output))


def join_hint(output: Path) -> str:
    """Return the hint if a command needs a whole run, and the folder holds shards."""
    folder = shell_word(str(output))
    return f"Join them first: tipsseg merge {folder} -o {folder}"


def conversion_begun(info: RunInfo, records: State) -> tuple[str, ...]:
    """Return the formats of an unfinished conversion, but those that only follow a correction."""
    return info.converting or tuple(name for name in FORMATS if name in records.stale)


def broken_conversion(output: Path, formats: Sequence[str]) -> RecordError:
    """Return the error for an unfinished conversion: images are in its formats, but the files for the whole run are not written."""
    names = ",".join(formats)
    return RecordError(
        output,
        f"a conversion into {names} was broken off",
        f"Run it again first: tipsseg convert {shell_word(str(output))} --format {names}",
    )


def _shards_of(output: Path) -> list[Shard]:
    """Return the shards of an output folder; none for a whole run. Raises RecordError if it is neither, or both."""
    if not is_folder(output):
        raise RecordError(output, *NO_FOLDER)
    if is_unfinished(output):
        raise RecordError(output, "a merge into it has not ended", f"Finish it first: {finish_command(output)}")
    shards = shards_in(output)
    whole = any(os.path.lexists(output / name) for name in (RUN_FILE, MANIFEST_FILE))
    if whole and shards and not is_begun(output):
        raise RecordError(output, "it holds both a whole run and shards", check_hint(output))
    return shards


def _open(
    output: Path, shard: Shard | None, stack: ExitStack, *, ended: bool, own: Path | None, max_pixels: int
) -> Run:
    state = state_folder(output, shard)
    if ended and state != own and is_locked(state):
        raise RecordError(state, "a run is at work there", "Wait for it to end.")
    if not os.path.lexists(state / RUN_FILE):
        raise RecordError(state, f"no {RUN_FILE} in it, so it is not an output folder of tipsseg label", _NAME_FOLDER)
    info = read_record(state / RUN_FILE, check_hint(output))
    check_shard(info, shard, state)
    if ended and info.ended is None:
        raise RecordError(state, "the run was broken off", RUN_AGAIN)
    records = stack.enter_context(closing(State(state)))
    _check_records(info, records)
    return Run(info, _read_classes(info), records, max_pixels)


def check_shard(info: RunInfo, shard: Shard | None, state: Path) -> None:
    """Raise RecordError if a shard's record is in the folder of another."""
    noted = info.spec.shard
    if shard is None and noted is not None:
        raise RecordError(
            state, f"these are the records of one shard, {noted}", "Name the output folder that has them."
        )
    if noted != shard:
        what = "null" if noted is None else short(str(noted))
        reason = f"{OTHER_VERSION}: `shard` is {what}, not as its folder's name says"
        raise RecordError(state / RUN_FILE, reason, check_hint(info.spec.output))


def _check_records(info: RunInfo, records: State) -> None:
    """Raise RecordError if the records have unreadable lines, or lost images."""
    path, done, held = info.spec.state / MANIFEST_FILE, info.images if info.ended else 0, len(records)
    if records.unreadable:
        raise RecordError(path, records.unreadable, check_hint(info.spec.output))
    if held < done:
        lost = records.without_entry()
        raise RecordError(
            path,
            f"{done - held} of {done} images are lost from it: {RUN_FILE} counts more than it has"
            + (f" ({join_first(lost, 3)})" if lost else ""),
            RUN_AGAIN,
        )


def _read_classes(info: RunInfo) -> tuple[LabelClass, ...]:
    """Read classes.json. Raises RecordError if the ids have another meaning in run.json."""
    output = info.spec.output
    path = output / CLASSES_FILE
    try:
        classes = read_classes(output)
    except OSError as error:
        raise RecordError(path, describe_error(error), RUN_AGAIN) from error
    except ValueError as error:
        raise RecordError(path, f"{OTHER_VERSION}: {error}", check_hint(output)) from error
    for what in class_faults([(each.id, each.name) for each in classes], info.names):
        raise RecordError(path, what, OTHER_CLASSES)
    return classes
