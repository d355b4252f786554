"""An output folder while one run has it: what an earlier run did, what is added, and what a killed one left behind."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from tipsseg.claim import LOCK_FILE, Claim
from tipsseg.earlier import Earlier
from tipsseg.error_log import ErrorLog
from tipsseg.file_options import val_fraction_of
from tipsseg.files import sweep, sweep_below
from tipsseg.journal import Journal, write_run_file
from tipsseg.outcome import Failed, Labelled
from tipsseg.request import Job
from tipsseg.run_record import CONVERTING, Counts, RunFacts, ended, run_record, write_run
from tipsseg.vocabulary import Vocabulary
from tipsseg.writers import FOLDERS, FORMATS, run_files
from tipsseg.writers.classes import FILE_NAME as CLASSES_FILE
from tipsseg.writers.classes import write_classes


class OutputFolder:
    """The records of one run; no other run can have them until it is closed. Use as a context manager.

    earlier    what was there before
    forgotten  number of images of an earlier run that this one does not go on from
    """

    def __init__(self, job: Job, *, resume: bool) -> None:
        """Take the folder; without `resume` what it has is forgotten, though files stay until they are replaced.

        Raises OutputError where another run is at work there, or has left labels that mean something else.
        """
        self._job = job
        context = job.context
        with ExitStack() as stack:
            claim = Claim(context.records)
            stack.callback(claim.give_back)
            if claim.left_over:
                self._sweep()
            self.earlier = Earlier(job)
            stack.callback(self.earlier.close)
            self._record = dict(self.earlier.record or {})
            self._fraction_before = val_fraction_of(self._record) if resume else 0.0
            asked = context.files.val_fraction
            self._files = replace(context.files, val_fraction=self._fraction_before if asked is None else asked)
            with_these = replace(context, files=self._files)
            self._run_files = [(name, file) for name in job.request.formats for file in run_files(name, with_these)]
            self._errors = ErrorLog(context.records)
            stack.callback(self._errors.close)
            if resume:
                self.earlier.refuse_other_ids()
            self.forgotten = 0 if resume else len(self.earlier.manifest)
            if not resume:
                self._forget()
            self._stack = stack.pop_all()

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
        kept = {key: value for key, value in self._record.items() if key == CONVERTING}
        self._record = run_record(replace(facts, decides=replace(facts.decides, files=self._files))) | kept
        write_run(context.records, self._record)
        write_classes(context.output, context.classes, vocabulary.background_texts, owner=context.owner)

    def add(self, labelled: Labelled) -> None:
        """Note that an image is done. Raises OutputError."""
        for name, records in labelled.records.items():
            self.earlier.journals[name].add(labelled.ref.name, records)
        self.earlier.manifest.add(self.earlier.with_other_formats(labelled.entry))

    def fail(self, failed: Failed) -> None:
        """Note that an image failed; what an earlier run made of it counts no more. Raises OutputError."""
        self._errors.add(failed)
        self.earlier.manifest.drop(failed.ref.name)
        for journal in self.earlier.journals.values():
            journal.drop(failed.ref.name)

    def finish(self, counts: Counts) -> None:
        """Write the records that come last. Raises OutputError."""
        manifest = self.earlier.manifest
        # First, so that no file lacks an image that the manifest has, should the run be killed now.
        manifest.tidy()
        for name, file in self._run_files:
            journal = self.earlier.journals.get(name)
            write_run_file(file, journal, manifest.holding(name), anew=not self.earlier.of_the_same)
        self._errors.finish(manifest)
        record = ended(self._record, self._job.request.formats, counts, datetime.now(UTC))
        write_run(self._job.context.records, record)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _forget(self) -> None:
        self.earlier.manifest.clear()
        self._errors.clear()
        for journal in self.earlier.journals.values():
            journal.clear()

    def _sweep(self) -> None:
        """Remove what a killed run left behind."""
        context = self._job.context
        if self._job.request.shard is not None:
            sweep([context.output], context.owner)
        sweep_run(context.output, context.records, context.owner)


def sweep_run(output: Path, records: Path, owner: str = "") -> None:
    """Remove what was left in the folders of a run under temporary names, but its journals; see `files.sweep`."""
    sweep([records], keep={LOCK_FILE, *(Journal.file_name(name) for name in FORMATS)})
    sweep_below((output / folder for folder in FOLDERS), owner)
