"""An output folder while one run has it: what an earlier run did, what is added, and what a killed one left behind."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from tipsseg.errors import OutputError
from tipsseg.formats import FORMATS, image_folders, index_masks
from tipsseg.formats.base import Rows
from tipsseg.store.classes_file import CLASSES_FILE, write_classes
from tipsseg.store.error_log import ErrorLog
from tipsseg.store.journal import Journal, write_run_file
from tipsseg.store.lock import LOCK_FILE, MERGE_FILE, FolderLock
from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, expected_files, input_path
from tipsseg.store.results import Failed, Labelled, Unchanged, move_files, remove_files, restore_links
from tipsseg.store.resume import ResumeState
from tipsseg.store.run_record import RUN_FILE, run_context, write_run
from tipsseg.store.spec import Counts, RunInfo, RunSpec
from tipsseg.store.summary import Totals, total
from tipsseg.store.writing import RunFile, run_files
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import atomic_write, clean_up, clean_up_below, json_bytes, remove_file
from tipsseg.util.ownership import digest_of, write_ahead_logs
from tipsseg.util.record_paths import actual_path


class OutputFolder:
    """The output folder of one run; no other run can have it until it is closed. Use as a context manager.

    Attributes:
        path: The output folder.
        context: What the writers have to know of the run.
        resume: What was there before.
        set_aside: Files that keep lines of records which could not be read.
        kept: Files of an earlier run that `overwrite` did not remove, because they were changed since.
        moved: How many images have files that were moved, see `results.move_files`.
    """

    def __init__(self, info: RunInfo, refs: Iterable[ImageRef | Failed]) -> None:
        """Take the folder, and make way for the images.

        Args:
            info: The run, as `plan_run` gives it.
            refs: The images of the run, as far as they are known.

        Raises:
            OutputError: Where another run is at work there, where the folder has labels that mean something else, or where files
                are in the way that this program did not write. Nothing was changed then.
        """
        spec = info.spec
        self.path = spec.output
        self.context = context = run_context(info)
        self.set_aside: list[Path] = []
        self.kept: list[Path] = []
        self._elsewhere = False
        self._totals: Totals | None = None
        with ExitStack() as stack:
            context.ownership.refuse_outside(context.state / RUN_FILE)
            lock = FolderLock(context.state)
            stack.callback(lock.give_back)
            if lock.left_over:
                _clean_up_before(spec)
            self.resume = ResumeState(info, context)
            stack.callback(self._close_resume)
            if not spec.overwrite:
                self.resume.refuse_other_ids(refs)
            elif not spec.replace_edited:
                self.resume.refuse_other_classes()
            before = self.resume.before
            #: What run.json says, or what it keeps of an earlier run that it does not say any more.
            self._record = before or info
            self._fraction_before = 0.0
            if before is not None and not spec.overwrite:
                self._fraction_before = before.spec.files.val_fraction or 0.0
            self._files = self.resume.files
            self.context = context = context.with_files(self._files)
            self._info = replace(info, spec=replace(spec, files=self._files))
            self._run_files = [(name, file) for name in spec.formats for file in run_files(name, context)]
            for _, file in self._run_files:
                context.ownership.refuse_changed(file.path)
            if spec.shard is None:  # else it may be another shard's, with the same content
                context.ownership.refuse_changed(context.output / CLASSES_FILE)
            self._errors = ErrorLog(context.state)
            stack.callback(self._errors.close)
            # From here on what is there is changed.
            self.resume.refuse_in_the_way(refs)
            self.moved = move_files(self.resume.manifest, context)
            if spec.overwrite:
                self._overwrite()
                self.moved = 0
            if (aside := self.resume.manifest.set_aside()) is not None:
                self.set_aside.append(aside)
            self._stack = stack.pop_all()

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the run."""
        return self._info.spec.formats

    @property
    def begun(self) -> bool:
        """Whether an earlier run of the same has written the records that come first."""
        same = self.resume.of_the_same and self._files.val_fraction == self._fraction_before
        return same and (self.context.output / CLASSES_FILE).exists()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be written: an earlier run of the same ended here, and this one has added nothing."""
        return (
            self.begun
            and self._record.ended is not None
            and not any(journal.changed for journal in self.resume.journals.values())
            and not self._errors.path.exists()
            and not (self.context.ownership.broken_off or self.context.ownership.noted or self.moved or self._elsewhere)
            and not self.set_aside
            and not self.resume.lost
            and all(path.exists() for path in self.run_paths)
        )

    @property
    def run_paths(self) -> list[Path]:
        """The files that stand for all images; without an image only what is there already and classes.json."""
        return [*(file.path for _, file in self._due_files()), self.context.output / CLASSES_FILE]

    def _due_files(self) -> list[tuple[str, RunFile]]:
        some = len(self.resume.manifest) > 0
        return [(name, file) for name, file in self._run_files if some or os.path.lexists(file.path)]

    def begin(self, info: RunInfo) -> None:
        """Write the records that come first: they say what masks mean, and that they are no inputs. Raises OutputError.

        Args:
            info: The run, as `Engine.start` gives it, with its `image_root` and when it `started`.
        """
        context = self.context
        self._info = replace(info, spec=replace(info.spec, files=self._files))
        self.resume.settle(self._info)
        # A conversion that was broken off before is so still.
        before = self._record
        self._record = replace(
            self._info,
            converting=before.converting,
            lost=before.lost,
            kept=before.kept,
        )
        write_run(context.ownership, self._record)
        vocabulary = info.vocabulary or info.spec.vocabulary
        write_classes(context.ownership, context.output, context.classes, vocabulary.background_texts)

    def add(self, labelled: Labelled) -> None:
        """Note that an image is done. Raises OutputError."""
        for name, rows in labelled.rows.items():
            self.resume.journals[name].add(labelled.ref.name, rows)
        before = self.resume.manifest.get(labelled.ref.name)
        entry = self.resume.with_other_formats(labelled.entry)
        if before is not None:  # older labels, which nobody is to take for its labels
            outdated = [name for name in before.formats if name not in entry.formats]
            remove_files(before, outdated, self.context, self._record.spec.files)
        self.resume.manifest.add(entry)
        self._errors.mend(labelled.ref.name)

    def keep(self, unchanged: Unchanged) -> None:
        """Note that an image was done before, and where it is now. Raises OutputError."""
        ref, entry = unchanged.ref, unchanged.entry
        context = self.context
        restore_links(context, ref, [name for name in self._info.spec.formats if name in entry.formats])
        if entry.path != input_path(ref):
            self.resume.manifest.add(replace(entry, path=input_path(ref)))
            self._elsewhere = True
        self._errors.mend(ref.name)

    def fail(self, failed: Failed) -> None:
        """Note that an image failed; what an earlier run made of it stays, as it was. Raises OutputError."""
        if self.resume.before is None:
            self.context.ownership.claim(self._errors.path)
        self._errors.add(failed)

    def finish(self, counts: Counts, batch_size: int | None) -> None:
        """Write the records that come last. Raises OutputError, also where files of this run were removed meanwhile."""
        manifest, context = self.resume.manifest, self.context
        if manifest.is_removed():  # nothing that follows would be true
            raise _removed(context.state / MANIFEST_FILE)
        removed = self._removed_file()
        # First, so that no file lacks an image that the manifest has, should the run be killed now.
        manifest.tidy()
        for name, file in self._due_files():
            journal = self.resume.journals.get(name)
            write_run_file(file, journal, manifest.holding(name), rewrite=not self.resume.of_the_same)
        self._write_outdated()
        self._errors.finish()
        self._record = replace(
            self._record,
            spec=replace(self._record.spec, formats=self.formats),
            # Of these formats the files for the whole run are whole now.
            converting=tuple(name for name in self._record.converting if name not in self.formats),
            ended=datetime.now(UTC),
            counts=counts,
            batch_size=self._record.batch_size if batch_size is None else batch_size,
            lost=self._record.lost or self.resume.incomplete_for_good or bool(self.set_aside),
            summary=self.totals().record(),
        )
        write_run(context.ownership, self._record)
        context.ownership.end(self.resume.manifest.records)
        if removed is not None:
            raise _removed(removed)

    def _write_outdated(self) -> None:
        """Leave images that are in a format no more out of its files for the whole run. Raises OutputError."""
        context, manifest, before = self.context, self.resume.manifest, self.resume.before
        # What was broken off, a run or a conversion, may have labelled images otherwise, or taken corrections, too.
        broken_off = before is not None and (before.ended is None or before.converting)
        outdated = set(FORMATS) if broken_off else self.resume.outdated
        for name in outdated.difference(self._info.spec.formats):
            holders = manifest.holding(name)
            for file in run_files(name, context):
                if not file.path.exists() or not context.ownership.is_unchanged(file.path):
                    continue
                if not file.has_rows:
                    file.write(holders)
                    continue
                with closing(Journal(name, file, context.state, holders)) as journal:
                    # If nothing was broken off here, the file stays as it is, with the command that wrote it.
                    if name in self.resume.outdated or journal.changed or not file.holds(holders):
                        journal.write(holders)

    def _removed_file(self) -> Path | None:
        """The first file of an image of this run that is not there any more; None where all are there."""
        context = self.context
        for file in self.resume.manifest.added_files():
            path = actual_path(context.output, file)
            if not os.path.lexists(path):
                return path
        return None

    def totals(self) -> Totals:
        """What all images of the folder hold together, once all are labelled. Raises OutputError."""
        if self._totals is None:  # all of the manifest is read
            self._totals = total(self.resume.manifest.summaries(), self.context.classes)
        return self._totals

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _close_resume(self) -> None:
        self.resume.close()  # the one that is there by then

    def _overwrite(self) -> None:
        """Remove what an earlier run wrote; files of images that were changed since stay, and corrected masks stay corrections.

        Raises OutputError.
        """
        context, ownership, before = self.context, self.context.ownership, self.resume.before
        corrected: list[ManifestEntry] = []
        rows: list[tuple[str, str, Rows]] = []
        for entry in self.resume.manifest.entries():
            options, edited = self._record.spec.files, self._info.spec.replace_edited
            left = remove_files(entry, entry.formats, context, options, edited=edited)
            paths = {name: actual_path(context.output, place) for name, place in entry.files.items()}
            # What has rows in a file of the whole run stays with them, if this run writes that file.
            journals = {name: each for name, each in self.resume.journals.items() if each.has(entry.image)}
            stays = {name for name in paths if name in journals or not FORMATS[name].has_rows}
            expected = expected_files(entry.image, stays, self._files)
            stays = {name for name in stays if paths[name] in left and expected[name] == entry.files[name]}
            if mask := next((paths[name] for name in index_masks() if name in stays), None):
                corrected.append(replace(entry.without(set(entry.formats) - stays), digest=self._info.digest))
                rows += [(name, entry.image, journals[name].rows(entry.image)) for name in stays & journals.keys()]
                again = {digest_of(mask)}
                left = [paths[name] for name in paths if name not in stays and not ownership.remove(paths[name], again)]
            self.kept += left
        self.kept += ownership.remove_pending()
        ownership.remove_run_files()
        self._errors.clear()
        kept = {*self.kept, *(path for path in self.resume.kept if os.path.lexists(path))}
        places = tuple(sorted(printable_path(path.relative_to(context.output)) for path in kept))
        if before is not None:
            # The record of the kept files stands before the manifest goes, so that a run that is killed here loses neither.
            nothing = replace(before, ended=None, counts=Counts(), summary={}, converting=(), lost=False)
            write_run(ownership, replace(nothing, kept=places))
        self.resume.close()
        for name in map(Journal.file_name, FORMATS):
            remove_file(context.state / name)
        if corrected:
            lines = [json_bytes(entry.record()) + b"\n" for entry in corrected]
            atomic_write(context.state / MANIFEST_FILE, b"".join(lines))
        else:
            remove_file(context.state / MANIFEST_FILE)
        ownership.end(lambda *_: True)
        self._record = replace(self._info, kept=places)
        self.resume = ResumeState(self._info, context)
        self.resume.before = None
        for name, image, each in rows:
            self.resume.journals[name].add(image, each)
        self.resume.kept = frozenset(kept)


def _clean_up_before(spec: RunSpec) -> None:
    """Remove what a killed run left behind."""
    if spec.shard is not None:
        clean_up([spec.output], spec.owner)
    clean_up_run(spec.output, spec.state, spec.owner)


def _removed(path: Path) -> OutputError:
    return OutputError(path, "it was removed while the run went on", "Run the same command again.")


def clean_up_run(output: Path, state: Path, owner: str = "") -> None:
    """Remove what was left in the folders of a run under temporary names, but what a run or a merge goes on from.

    See `files.clean_up`.
    """
    kept = {LOCK_FILE, MERGE_FILE, *map(Journal.file_name, FORMATS)}
    clean_up([state], keep=kept.union(log.name for log in write_ahead_logs(state)))
    clean_up_below((place / folder for place in {output, state} for folder in image_folders()), owner)
