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
from tipsseg.formats import FORMATS, image_folders
from tipsseg.formats.base import RowsFile
from tipsseg.options import recorded_names, val_fraction_of
from tipsseg.store.classes_file import FILE_NAME as CLASSES_FILE
from tipsseg.store.classes_file import write_classes
from tipsseg.store.error_log import ErrorLog
from tipsseg.store.journal import Journal, write_run_file
from tipsseg.store.lock import LOCK_FILE, FolderLock
from tipsseg.store.manifest import MANIFEST_FILE, input_path
from tipsseg.store.merge_stage import JOINED, JOINING
from tipsseg.store.results import Failed, Labelled, Unchanged
from tipsseg.store.resume import ResumeState, remove_files, restore_links
from tipsseg.store.run_record import CONVERTING, KEPT, LOST, RUN_FILE, Counts, RunFacts, ended, run_record, write_run
from tipsseg.store.spec import Job
from tipsseg.store.totals import Totals, total
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import clean_up, clean_up_below, remove_file
from tipsseg.util.json_values import actual_path
from tipsseg.util.ownership import write_ahead_logs
from tipsseg.vocabulary.vocabulary import Vocabulary


class OutputFolder:
    """The records of one run; no other run can have them until it is closed. Use as a context manager.

    path       the output folder
    earlier    what was there before
    set_aside  files that keep lines of records which could not be read
    kept       files of an earlier run that --overwrite did not remove, because they were changed since
    """

    def __init__(self, job: Job) -> None:
        """Take the folder.

        Raises OutputError where another run is at work there, or has left labels that mean something else, or files are in the way
        that this program did not write; then nothing was changed.
        """
        self._job = job
        self.path = job.context.output
        context, request = job.context, job.request
        self.set_aside: list[Path] = []
        self.kept: list[Path] = []
        self._moved = False
        self._totals: Totals | None = None
        with ExitStack() as stack:
            context.ownership.refuse_outside(context.state / RUN_FILE)
            claim = FolderLock(context.state)
            stack.callback(claim.give_back)
            if claim.left_over:
                self._sweep()
            self.earlier = ResumeState(job, resume=request.resume, replace_edited=request.replace_edited)
            stack.callback(self._close_earlier)
            if not request.overwrite:
                self.earlier.refuse_other_ids()
            self._record = dict(self.earlier.record or {})
            self._fraction_before = val_fraction_of(self._record) if not request.overwrite else 0.0
            asked = context.files.val_fraction
            self._files = replace(context.files, val_fraction=self._fraction_before if asked is None else asked)
            with_these = context.with_files(self._files)
            self._run_files = [(name, file) for name in request.formats for file in FORMATS[name].run_files(with_these)]
            for _, file in self._run_files:
                context.ownership.refuse_changed(file.path)
            if request.shard is None:  # else it may be another shard's, with the same content
                context.ownership.refuse_changed(context.output / CLASSES_FILE)
            self._errors = ErrorLog(context.state)
            stack.callback(self._errors.close)
            self._stack = stack.pop_all()

    def prepare(self, refs: Iterable[ImageRef | Failed]) -> None:
        """Make way for these images, as far as they are known; the first thing to change what is there. Raises OutputError."""
        self.earlier.refuse_in_the_way(refs)
        if self._job.request.overwrite:
            self._overwrite()
        if (aside := self.earlier.manifest.set_aside()) is not None:
            self.set_aside.append(aside)

    def settle(self, job: Job) -> None:
        """Take the same job, with the dtype that is known by now."""
        self._job = job
        self.earlier.settle(job)

    @property
    def begun(self) -> bool:
        """Whether an earlier run of the same has written the records that come first."""
        same = self.earlier.of_the_same and self._files.val_fraction == self._fraction_before
        return same and (self._job.context.output / CLASSES_FILE).exists()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be written: an earlier run of the same ended here, and this one has added nothing."""
        return (
            self.begun
            and self._record.get("ended") is not None
            and not any(journal.changed for journal in self.earlier.journals.values())
            and not self._errors.path.exists()
            and not (self._job.context.ownership.broken_off or self._job.context.ownership.noted or self._moved)
            and not self.set_aside
            and not self.earlier.lost
            and all(path.exists() for path in self.run_paths)
        )

    @property
    def run_paths(self) -> list[Path]:
        """The files that stand for all images."""
        return [*(file.path for _, file in self._run_files), self._job.context.output / CLASSES_FILE]

    def begin(self, facts: RunFacts, vocabulary: Vocabulary) -> None:
        """Write the records that come first: they say what masks mean, and that they are no inputs. Raises OutputError."""
        context = self._job.context
        # A conversion that was broken off before is so still.
        kept = {key: value for key, value in self._record.items() if key in (CONVERTING, LOST, KEPT)}
        self._record = run_record(replace(facts, decides=replace(facts.decides, files=self._files))) | kept
        write_run(context.ownership, context.state, self._record)
        write_classes(context.ownership, context.output, context.classes, vocabulary.background_texts)

    def add(self, labelled: Labelled) -> None:
        """Note that an image is done. Raises OutputError."""
        for name, records in labelled.rows.items():
            self.earlier.journals[name].add(labelled.ref.name, records)
        before = self.earlier.manifest.get(labelled.ref.name)
        entry = self.earlier.with_other_formats(labelled.entry)
        if before is not None:  # older labels, which nobody is to take for its labels
            outdated = [name for name in before.formats if name not in entry.formats]
            remove_files(before, outdated, self._job.context, recorded_names(self._record))
        self.earlier.manifest.add(entry)
        self._errors.mend(labelled.ref.name)

    def keep(self, unchanged: Unchanged) -> None:
        """Note that an image was done before, and where it is now. Raises OutputError."""
        ref, entry = unchanged.ref, unchanged.entry
        context = self._job.context
        restore_links(context, ref, [name for name in self._job.request.formats if name in entry.formats])
        if entry.path != input_path(ref):
            self.earlier.manifest.add(replace(entry, path=input_path(ref)))
            self._moved = True
        self._errors.mend(ref.name)

    def fail(self, failed: Failed) -> None:
        """Note that an image failed; what an earlier run made of it stays, as it was. Raises OutputError."""
        if self.earlier.record is None:
            self._job.context.ownership.claim(self._errors.path)
        self._errors.add(failed)

    def finish(self, counts: Counts, batch_size: int | None) -> None:
        """Write the records that come last. Raises OutputError, also where files of this run were removed meanwhile."""
        manifest, context = self.earlier.manifest, self._job.context
        if manifest.is_removed():  # nothing that follows would be true
            raise _removed(context.state / MANIFEST_FILE)
        removed = self._removed_file()
        # First, so that no file lacks an image that the manifest has, should the run be killed now.
        manifest.tidy()
        for name, file in self._run_files:
            journal = self.earlier.journals.get(name)
            write_run_file(file, journal, manifest.holding(name), anew=not self.earlier.of_the_same)
        self._write_outdated()
        self._errors.finish()
        record = ended(self._record, self._job.request.formats, counts, datetime.now(UTC))
        if batch_size is not None:
            record["batch_size"] = batch_size
        if self.earlier.incomplete_for_good or self.set_aside:
            record[LOST] = True
        write_run(context.ownership, context.state, {**record, "summary": self.totals().record()})
        context.ownership.end(self.earlier.is_recorded)
        if removed is not None:
            raise _removed(removed)

    def _write_outdated(self) -> None:
        """Leave images that are in a format no more out of its files for the whole run. Raises OutputError."""
        context, manifest = self._job.context, self.earlier.manifest
        for name in self.earlier.outdated.difference(self._job.request.formats):
            holders = manifest.holding(name)
            for file in FORMATS[name].run_files(context):
                if not file.path.exists() or not context.ownership.is_unchanged(file.path):
                    continue
                if not isinstance(file, RowsFile):
                    file.write(holders, lambda _: ())
                    continue
                with closing(Journal(name, file, context.state, holders)) as journal:
                    journal.write(holders)

    def _removed_file(self) -> Path | None:
        """The first file of an image of this run that is not there any more; None where all are there."""
        context = self._job.context
        for entry in self.earlier.manifest.added():
            for file in entry.files.values():
                path = actual_path(context.output, file)
                if not os.path.lexists(path):
                    return path
        return None

    def totals(self) -> Totals:
        """What all images of the folder hold together, once all are labelled. Raises OutputError."""
        if self._totals is None:  # all of the manifest is read
            summaries = (entry.summary for entry in self.earlier.manifest.entries())
            self._totals = total(summaries, self._job.context.classes)
        return self._totals

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _close_earlier(self) -> None:
        self.earlier.close()  # the one that is there by then

    def _overwrite(self) -> None:
        """Remove what an earlier run wrote; files of images that were changed since stay. Raises OutputError."""
        context, ownership = self._job.context, self._job.context.ownership
        for entry in self.earlier.manifest.entries():
            names, edited = recorded_names(self._record), self._job.request.replace_edited
            self.kept += remove_files(entry, entry.formats, context, names, edited=edited)
        ownership.remove_run_files()
        self._errors.clear()
        self.earlier.close()
        # run.json last: as long as it is there, the same command can go on.
        for name in (*map(Journal.file_name, FORMATS), MANIFEST_FILE, RUN_FILE):
            remove_file(context.state / name)
        ownership.end(lambda image, digest: True)
        kept = {*self.kept, *(path for path in self.earlier.kept if os.path.lexists(path))}
        self._record = {KEPT: sorted(printable_path(path.relative_to(context.output)) for path in kept)} if kept else {}
        self.earlier = ResumeState(self._job, replace_edited=self._job.request.replace_edited)
        self.earlier.kept = frozenset(kept)

    def _sweep(self) -> None:
        """Remove what a killed run left behind."""
        context = self._job.context
        if self._job.request.shard is not None:
            clean_up([context.output], context.owner)
        clean_up_run(context.output, context.state, context.owner)


def _removed(path: Path) -> OutputError:
    return OutputError(path, "it was removed while the run went on", "Run the same command again.")


def clean_up_run(output: Path, records: Path, owner: str = "") -> None:
    """Remove what was left in the folders of a run under temporary names, but what a run or a merge goes on from.

    See `files.clean_up`.
    """
    kept = {LOCK_FILE, JOINING, JOINED, *map(Journal.file_name, FORMATS)}
    clean_up([records], keep=kept.union(log.name for log in write_ahead_logs(records)))
    clean_up_below((output / folder for folder in image_folders()), owner)
