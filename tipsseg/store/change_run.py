"""Change a run that has ended: take corrected masks, classes and formats into it.

with change_run(output) as changes:        no other process may write into the folder meanwhile
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
from tipsseg.formats import FORMATS, check_formats, of_the_model
from tipsseg.formats.base import Rows
from tipsseg.options import MAX_PIXELS, FileOptions
from tipsseg.store.classes_file import read_classes, write_classes
from tipsseg.store.folder import clean_up_run
from tipsseg.store.journal import Journal, journals_in, write_run_file
from tipsseg.store.lock import FolderLock
from tipsseg.store.manifest import Manifest, ManifestEntry
from tipsseg.store.open_run import NO_FOLDER, Run, open_run
from tipsseg.store.results import in_place, move_files
from tipsseg.store.run_record import read_run, run_context, write_run
from tipsseg.store.spec import RunInfo
from tipsseg.store.summary import total
from tipsseg.store.writing import rows_file, run_files
from tipsseg.types import ImageRef
from tipsseg.util.files import is_folder, remove_file
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary


@contextmanager
def change_run(output: Path, *, max_pixels: int = MAX_PIXELS) -> Iterator[RunChanges]:
    """Open the run of an output folder to change it. Raises as `open_run` does, and OutputError if the folder cannot be written."""
    if not is_folder(output):
        raise RecordError(output, *NO_FOLDER)
    lock = FolderLock(output)
    try:
        if lock.left_over:
            clean_up_run(output, output)
        _finish_adding(output)
        with open_run(output, held=True, max_pixels=max_pixels) as run, closing(RunChanges(run)) as changes:
            yield changes
    finally:
        lock.give_back()


class RunChanges:
    """What becomes other in a run that has ended.

    Attributes:
        run: The run.
        followers: Formats that images are in beside those of `open_formats`, and that follow masks which a person corrected.
    """

    def __init__(self, run: Run) -> None:
        """Begin without a change."""
        self.run = run
        self.followers: tuple[str, ...] = ()
        self._formats: tuple[str, ...] = ()
        self._journals: dict[str, Journal] = {}

    @property
    def _manifest(self) -> Manifest:
        return self.run.manifest

    def set_files(self, files: FileOptions) -> None:
        """Let labels become files by other options from now on; `end` writes them down."""
        run = self.run
        run.info = replace(run.info, spec=replace(run.info.spec, files=files))
        run.context = run.context.with_files(files)

    def open_formats(self, formats: Sequence[str]) -> None:
        """Let images come into these formats. Raises OutputError if somebody else's files are in the place of theirs."""
        context = self.run.context
        for file in (file for name in formats for file in run_files(name, context)):
            context.ownership.refuse_changed(file.path)
        # All other formats follow masks that a person corrected, but for rows that a person changed too.
        others = set().union(*self._manifest.formats()) - {*formats, *of_the_model()}
        files = {name: rows_file(name, context) for name in FORMATS}
        self._formats = tuple(formats)
        self.followers = tuple(
            name
            for name, file in files.items()
            if name in others and (file is None or context.ownership.is_unchanged(file.path))
        )
        for name in (*formats, *self.followers):
            if (rows := files[name]) is not None:
                self._journals[name] = Journal(name, rows, context.state, self._manifest.holding(name))

    def begin(self) -> int:
        """Write down which formats are to come, so that whoever finds the folder half done knows how to go on.

        Files that an earlier version put elsewhere are moved; return how many images have such files. Raises OutputError.
        """
        write_run(self.run.context.ownership, replace(self.run.info, converting=self._formats))
        return move_files(self._manifest, self.run.context)

    def holds(self, name: str, entry: ManifestEntry, ref: ImageRef) -> bool:
        """Return whether an image is in a format, with all that belongs to it."""
        return in_place(name, entry, ref, self.run.context, self._journals.get(name))

    def has_rows(self, name: str) -> bool:
        """Return whether images have rows in a format that is open."""
        return name in self._journals

    def add(self, entry: ManifestEntry, rows: Mapping[str, Rows] | None = None, left: Collection[str] = ()) -> None:
        """Write down an image, whose files are in place, and its rows; it is in the formats `left` no more. Raises OutputError."""
        for name in self._journals.keys() & set(left):
            self._journals[name].begin()  # so that its file is written without the image
        for name, lines in (rows or {}).items():
            self._journals[name].add(entry.image, lines)
        self._manifest.add(entry)

    def end(self, *, counted_again: bool = False) -> list[Path]:
        """Write the files of the whole run, and the records. Return the files of open formats and of those that followed.

        Args:
            counted_again: Whether labels were changed since the run was summed up.

        Raises:
            OutputError: If one of them cannot be written.
        """
        context, info = self.run.context, self.run.info
        followed = [name for name in self.followers if name in self._journals and self._journals[name].changed]
        # First, so that no file lacks an image that the manifest has, should this be killed now.
        self._manifest.tidy()
        for name in (*self._formats, *self.followers):
            for file in run_files(name, context):
                if name in self._formats or context.ownership.is_unchanged(file.path):
                    write_run_file(file, self._journals.get(name), self._manifest.holding(name), rewrite=False)
        for name in journals_in(context.state):  # of rows that a person changed after they began to follow
            remove_file(context.state / Journal.file_name(name))
        if counted_again or (info.converting and info.summary):  # what was broken off may have taken corrections
            info = replace(info, summary=total((each.summary for each in self.run.entries()), context.classes).record())
        formats = tuple(dict.fromkeys((*info.spec.formats, *self._formats)))
        write_run(context.ownership, replace(info, spec=replace(info.spec, formats=formats), converting=()))
        context.ownership.end(self._manifest.records)
        return [file.path for name in (*self._formats, *followed) for file in run_files(name, context)]

    def tidy(self) -> None:
        """Leave the records as a run does, once masks were added that a person corrected. Raises OutputError."""
        self._manifest.tidy()
        self.run.context.ownership.end(self._manifest.records)

    def add_classes(self, names: Sequence[str]) -> None:
        """Give the run further classes. Raises InputError for names that cannot be, and OutputError."""
        info, context = _with_classes(self.run.info, names), self.run.context
        vocabulary = info.vocabulary or info.spec.vocabulary
        check_formats(self.run.formats, vocabulary.classes)
        # In classes.json first; `_finish_adding` goes on from that.
        write_classes(context.ownership, context.output, vocabulary.classes, vocabulary.background_texts)
        write_run(context.ownership, info)

    def close(self) -> None:
        """Close the files; safe to call twice."""
        for journal in self._journals.values():
            journal.close()


def _finish_adding(output: Path) -> None:
    """Let run.json have the further classes that classes.json has: adding them was broken off between the two. Raises OutputError.

    What is wrong with the files otherwise is told by who reads the run.
    """
    with suppress(OSError, ValueError, InputError):
        info, classes = read_run(output), read_classes(output)
        known = [each.name for each in info.spec.vocabulary.classes]
        names = [each.name for each in classes]
        if len(names) > len(known) and names[: len(known)] == known:
            info = _with_classes(info, names[len(known) :])
            ownership = run_context(info).ownership
            ownership.load(info.files, lambda *_: True)
            write_run(ownership, info)
            ownership.end(lambda *_: True)


def _with_classes(info: RunInfo, names: Sequence[str]) -> RunInfo:
    return replace(
        info,
        spec=replace(info.spec, vocabulary=_extended(info.spec.vocabulary, names)),
        vocabulary=None if info.vocabulary is None else _extended(info.vocabulary, names),
    )


def _extended(vocabulary: Vocabulary, names: Sequence[str]) -> Vocabulary:
    """Return the vocabulary with further classes at its end; its background stays."""
    specs = [*vocabulary.specs, *(ClassSpec(name) for name in names)]
    try:
        made = make_vocabulary(specs, "none", vocabulary.templates, vocabulary.source)
    except VocabularyError as error:
        raise InputError(f"a new class cannot be: {error.message}", error.hint) from error
    return replace(made, background=vocabulary.background, auto=vocabulary.auto, fit=vocabulary.fit)
