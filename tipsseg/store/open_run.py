"""Open the run in an output folder, and read its records and images.

    with open_run(output) as run:                     a finished run
        for image in run.images():
            labels = image.labels()
    with open_runs(output, ended=False) as runs:      a run, or the shards of one, finished or not

Invalid records raise RecordError, which names the file, the fault and a hint.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import InputError, RecordError
from tipsseg.formats import FORMATS
from tipsseg.formats.classes_file import CLASSES_FILE, read_classes
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
from tipsseg.util.problem import class_faults

#: The hint for an interrupted run.
RUN_AGAIN = "Run the original command again; finished images are kept."

#: The hint if classes.json and run.json give ids different meanings.
OTHER_CLASSES = f"Restore {CLASSES_FILE}, or remove it and run the original command again."

_NAME_FOLDER = "Pass an output folder of tipsseg label."

#: The reason and the hint for a missing folder.
NO_FOLDER = "no such folder", _NAME_FOLDER


class Run:
    """A recorded run, or a shard of one.

    Attributes:
        info: Content of its run.json.
        context: Settings for the format writers, with the classes in classes.json.
        records: The database of its images.
        max_pixels: Refuse images with more pixels.
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

    def refuse_raster(self) -> None:
        """Raise InputError for a run of rasters, whose labels may be larger than memory."""
        if self.info.spec.is_raster:
            raise InputError(
                f"{self.output}: this command does not read the labels of rasters",
                "Open the files in a GIS; or label the rasters again with the formats that you need.",
            )

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
        """Yield the image entries, sorted by name.

        Raises RecordError for file paths that no version uses, because an imported manifest may come from anywhere.
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
        """Yield the images, sorted by name."""
        return map(self.image, self.entries())

    def corrections(self) -> Iterator[tuple[RunImage, Mask | None]]:
        """Yield the images, each with its edited mask or None; see `RunImage.correction`."""
        return ((image, image.correction()) for image in self.images())

    def failures(self) -> Iterator[tuple[str, Path, str]]:
        """Yield name, path and reason of each failed image that has no labels."""
        for each in self.records.failures():
            if each.image not in self:
                yield each.image, each.ref.path, each.reason


def refuse_overlap(run: Run, reason: str) -> None:
    """Raise InputError if the classes of a run overlap."""
    if run.info.spec.options.overlap:
        raise InputError(
            f"{run.output}: its classes overlap, but {reason}", "Label into another folder without argument `overlap`."
        )


@contextmanager
def open_run(output: Path, *, held: bool = False, max_pixels: int = MAX_PIXELS) -> Iterator[Run]:
    """Open the run in an output folder. Raises as `open_runs` does, and RecordError if the folder holds shards."""
    if is_folder(output) and not os.path.lexists(output / RUN_FILE) and shards_in(output):
        raise RecordError(output, "it holds shards", join_hint(output))
    with open_runs(output, own=output if held else None, max_pixels=max_pixels) as (run,):
        yield run


@contextmanager
def open_runs(
    output: Path, *, ended: bool = True, own: Path | None = None, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[Run, ...]]:
    """Open the run in an output folder, or its shards.

    Args:
        output: The output folder.
        ended: Refuse runs that are in progress or were interrupted.
        own: The folder whose lock the caller holds.
        max_pixels: Refuse images with more pixels.

    Raises:
        RecordError: The folder is not an output folder, the run is not finished, or its records are damaged or incomplete.
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
    """Return the hint for a command that needs a whole run, if the folder holds shards."""
    folder = shell_word(str(output))
    return f"Join them first: tipsseg merge {folder} -o {folder}"


def conversion_begun(info: RunInfo, records: State) -> tuple[str, ...]:
    """Return the formats of an unfinished conversion, except those that only follow a correction."""
    return info.converting or tuple(name for name in FORMATS if name in records.stale)


def broken_conversion(output: Path, formats: Sequence[str]) -> RecordError:
    """Return the error for an unfinished conversion, which may have written per-image files but no files for the whole run."""
    names = ",".join(formats)
    return RecordError(
        output,
        f"a conversion into {names} was interrupted",
        f"Run it again first: tipsseg convert {shell_word(str(output))} --format {names}",
    )


def _shards_of(output: Path) -> list[Shard]:
    """Return the shards in an output folder; an empty list for a whole run. Raises RecordError if it has neither or both."""
    if not is_folder(output):
        raise RecordError(output, *NO_FOLDER)
    if is_unfinished(output):
        raise RecordError(output, "a merge into it is unfinished", f"Finish it first: {finish_command(output)}")
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
        raise RecordError(state, "a run is in progress", "Wait for it to finish.")
    if not os.path.lexists(state / RUN_FILE):
        raise RecordError(state, f"no {RUN_FILE} in it, so it is not an output folder of tipsseg label", _NAME_FOLDER)
    info = read_record(state / RUN_FILE, check_hint(output))
    check_shard(info, shard, state)
    if ended and info.ended is None:
        raise RecordError(state, "the run was interrupted", RUN_AGAIN)
    records = stack.enter_context(closing(State(state)))
    _check_records(info, records)
    return Run(info, _read_classes(info), records, max_pixels)


def check_shard(info: RunInfo, shard: Shard | None, state: Path) -> None:
    """Raise RecordError if a folder has the record of a different shard."""
    noted = info.spec.shard
    if shard is None and noted is not None:
        raise RecordError(
            state, f"it has the records of a single shard, {noted}", "Pass the output folder that contains the shard."
        )
    if noted != shard:
        what = "null" if noted is None else short(str(noted))
        reason = f"{OTHER_VERSION}: `shard` is {what}, which does not match the folder name"
        raise RecordError(state / RUN_FILE, reason, check_hint(info.spec.output))


def _check_records(info: RunInfo, records: State) -> None:
    """Raise RecordError if the records have unreadable lines or lack images."""
    path, done, held = info.spec.state / MANIFEST_FILE, info.images if info.ended else 0, len(records)
    if records.unreadable:
        raise RecordError(path, records.unreadable, check_hint(info.spec.output))
    if held < done:
        lost = records.without_entry()
        raise RecordError(
            path,
            f"it lacks {done - held} of the {done} images that {RUN_FILE} counts"
            + (f" ({join_first(lost, 3)})" if lost else ""),
            RUN_AGAIN,
        )


def _read_classes(info: RunInfo) -> tuple[LabelClass, ...]:
    """Read classes.json. Raises RecordError if run.json gives its ids other meanings."""
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
