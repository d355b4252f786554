"""Change a finished run: add corrected masks, classes and formats.

with change_run(output) as changes:        locks the folder
    changes.run                            the run, see `open_run`
    changes.add(entry, rows)
    changes.end()
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import InputError, RecordError, VocabularyError
from tipsseg.formats import FORMATS, check_formats, model_only_formats
from tipsseg.formats.base import Rows
from tipsseg.formats.classes_file import CLASSES_FILE, classes_json, read_classes
from tipsseg.options import MAX_PIXELS, FileOptions
from tipsseg.store.folder import clean_up_run
from tipsseg.store.lock import FolderLock
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.open_run import NO_FOLDER, Run, open_run
from tipsseg.store.ownership import StagedFile
from tipsseg.store.results import in_place, move_files
from tipsseg.store.run_record import find_run, run_context, write_run
from tipsseg.store.spec import RunInfo
from tipsseg.store.state import State
from tipsseg.store.summary import total
from tipsseg.store.writing import put_in_place, rows_file, run_files, write_run_files
from tipsseg.types import ImageRef
from tipsseg.util.files import is_folder
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary


@contextmanager
def change_run(output: Path, *, max_pixels: int = MAX_PIXELS) -> Iterator[RunChanges]:
    """Open the run in an output folder for changes. Raises as `open_run` does, and OutputError if the folder cannot be written."""
    if not is_folder(output):
        raise RecordError(output, *NO_FOLDER)
    lock = FolderLock(output)
    try:
        if lock.left_over:
            clean_up_run(output, output)
        _finish_adding(output)
        with open_run(output, held=True, max_pixels=max_pixels) as run:
            yield RunChanges(run)
    except BaseException:  # remove per-image files that are not in place yet
        clean_up_run(output, output)
        raise
    finally:
        lock.give_back()


class RunChanges:
    """Changes to a finished run.

    Attributes:
        run: The run.
        followers: Other formats of the run, which are updated if a mask was corrected.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.followers: tuple[str, ...] = ()
        self._formats: tuple[str, ...] = ()

    @property
    def _records(self) -> State:
        return self.run.records

    def set_files(self, files: FileOptions) -> None:
        """Use other file options from now on; `end` records them."""
        run = self.run
        run.info = replace(run.info, spec=replace(run.info.spec, files=files))
        run.context = run.context.with_files(files)

    def open_formats(self, formats: Sequence[str]) -> None:
        """Allow `add` to add images in these formats.

        Raises:
            OutputError: A file for the whole run exists that tipsseg did not write.
        """
        context = self.run.context
        for file in (file for name in formats for file in run_files(name, context)):
            file.refuse_changed()
        # All other formats follow corrected masks, unless their file of rows was edited too.
        others = set().union(*self._records.formats()) - {*formats, *model_only_formats()}
        rows = {name: rows_file(name, context) for name in FORMATS if name in others}
        self._formats = tuple(formats)
        self.followers = tuple(
            name for name, file in rows.items() if file is None or context.ownership.is_unchanged(file.path)
        )

    def begin(self) -> int:
        """Record the new formats, so that an interrupted conversion can be resumed.

        Also move files that another `val_fraction` put elsewhere, and return the number of images whose files were moved.
        """
        self._records.begin()
        write_run(self.run.context.ownership, replace(self.run.info, converting=self._formats))
        return move_files(self._records, self.run.context)

    def holds(self, name: str, entry: ManifestEntry, ref: ImageRef) -> bool:
        """Return True if a format has an image's file and rows."""
        return in_place(name, entry, ref, self.run.context, self._records)

    def put(self, ref: ImageRef, staged: Sequence[StagedFile], before: ManifestEntry) -> None:
        """Move an image's files into place. Raises ImageError if another file is in the way."""
        put_in_place(ref, staged, self.run.context, before.former)

    def add(self, entry: ManifestEntry, rows: Mapping[str, Rows] | None = None, left: Collection[str] = ()) -> None:
        """Record an image whose files are in place, and its rows; `left` are the formats that no longer include it."""
        self._records.add(entry, rows, stale=left)

    def end(self, *, counted_again: bool = False) -> list[Path]:
        """Write the files for the whole run and the records. Return the files of the open formats and of updated followers.

        Args:
            counted_again: True if labels have changed since the run's summary was computed.

        Raises:
            OutputError: A file cannot be written.
        """
        context, info, records = self.run.context, self.run.info, self._records
        followed = [name for name in self.followers if name in records.stale]
        for name in self._formats:
            write_run_files(name, context, records)
        for name in self.followers:
            if all(context.ownership.is_unchanged(file.path) for file in run_files(name, context)):
                write_run_files(name, context, records)
        records.mark_fresh(*records.stale)  # also formats whose file was edited meanwhile
        if counted_again or (info.converting and info.summary):  # the killed conversion may have added corrections
            info = replace(info, summary=total(records.summaries(), context.classes).record())
        formats = tuple(dict.fromkeys((*info.spec.formats, *self._formats)))
        write_run(context.ownership, replace(info, spec=replace(info.spec, formats=formats), converting=()))
        self.tidy()
        return [file.path for name in (*self._formats, *followed) for file in run_files(name, context)]

    def tidy(self) -> None:
        """Write the exports."""
        self._records.end(self.run.context.ownership.record())

    def add_classes(self, names: Sequence[str]) -> None:
        """Add classes to the run. Raises InputError if a name is invalid."""
        info, context = _with_classes(self.run.info, names), self.run.context
        vocabulary = info.vocabulary or info.spec.vocabulary
        check_formats(self.run.formats, vocabulary.classes)
        # classes.json first: `_finish_adding` resumes from it.
        meanings = classes_json(vocabulary.classes, vocabulary.background_texts)
        context.ownership.write_run_file(context.output / CLASSES_FILE, meanings)
        write_run(context.ownership, info)


def _finish_adding(output: Path) -> None:
    """Finish an interrupted `add_classes`: add the classes to run.json that only classes.json has.

    Other faults are reported when the run is opened.
    """
    if (info := find_run(output)) is None:
        return
    with suppress(OSError, ValueError, InputError):
        classes = read_classes(output)
        known = [each.name for each in info.spec.vocabulary.classes]
        names = [each.name for each in classes]
        if len(names) > len(known) and names[: len(known)] == known:
            info = _with_classes(info, names[len(known) :])
            ownership = run_context(info).ownership
            with closing(State(output)) as records:
                ownership.load(info.files, records)
            write_run(ownership, info)


def _with_classes(info: RunInfo, names: Sequence[str]) -> RunInfo:
    return replace(
        info,
        spec=replace(info.spec, vocabulary=_extended(info.spec.vocabulary, names)),
        vocabulary=None if info.vocabulary is None else _extended(info.vocabulary, names),
    )


def _extended(vocabulary: Vocabulary, names: Sequence[str]) -> Vocabulary:
    specs = [*vocabulary.specs, *(ClassSpec(name) for name in names)]
    try:
        made = make_vocabulary(specs, "none", vocabulary.templates, vocabulary.source)
    except VocabularyError as error:
        raise InputError(f"invalid new class: {error.message}", error.hint) from error
    return replace(made, background=vocabulary.background, auto=vocabulary.auto, fit=vocabulary.fit)
