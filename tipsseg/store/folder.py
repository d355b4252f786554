"""The output folder of one run: lock it, resume from an earlier run, record images, and finish."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tipsseg.errors import ImageError, OutputError
from tipsseg.formats import FORMATS, image_folders, mask_formats
from tipsseg.formats.base import Rows
from tipsseg.formats.classes_file import CLASSES_FILE, classes_json
from tipsseg.store.failures import Failure
from tipsseg.store.lock import LOCK_FILE, MERGE_FILE, FolderLock
from tipsseg.store.manifest import ManifestEntry, expected_files, input_path
from tipsseg.store.ownership import digest_of
from tipsseg.store.results import (
    Failed,
    Labelled,
    Unchanged,
    move_files,
    remove_files,
    remove_former_parts,
    restore_links,
)
from tipsseg.store.resuming.refusals import open_resume, refuse_in_the_way, refuse_other_classes, refuse_other_ids
from tipsseg.store.run_record import RUN_FILE, run_context, write_run
from tipsseg.store.spec import Counts, RunInfo, RunSpec
from tipsseg.store.state import STATE_FOLDER, State
from tipsseg.store.summary import Totals, total
from tipsseg.store.writing import RunFile, put_in_place, run_files, write_run_files
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.files import clean_up, clean_up_below
from tipsseg.util.record_paths import actual_path


class OutputFolder:
    """The output folder of one run, locked until it is closed. Use as a context manager.

    Attributes:
        path: The output folder.
        context: The settings and folders for the format writers.
        resume: The state left by an earlier run.
        state: The database of the folder.
        kept: Files of an earlier run that `overwrite` did not remove because they were edited.
        moved: Number of images whose files were moved, see `results.move_files`.
    """

    def __init__(self, info: RunInfo, refs: Iterable[ImageRef | Failed]) -> None:
        """Lock the folder and prepare it for the images.

        Args:
            info: The run, from `plan_run`.
            refs: The images of the run that are known in advance.

        Raises:
            OutputError: Another run is using the folder, its labels have other meanings, or files that tipsseg did not write are in
                the way. Nothing was changed.
        """
        spec = info.spec
        self.path = spec.output
        self.context = context = run_context(info)
        self.kept: list[Path] = []
        self._totals: Totals | None = None
        with ExitStack() as stack:
            context.ownership.refuse_outside(context.state / RUN_FILE)
            lock = FolderLock(context.state)
            stack.callback(lock.give_back)
            if lock.left_over:
                _clean_up_before(spec)
            self.state = stack.enter_context(closing(State(context.state)))
            self.resume = open_resume(info, context, self.state)
            if not spec.overwrite:
                refuse_other_ids(self.resume, refs)
            elif not spec.replace_edited:
                refuse_other_classes(self.resume)
            before = self.resume.before
            #: The content of run.json, or of an earlier run.json that this run will extend.
            self._record = before or info
            self._fraction_before = 0.0
            if before is not None and not spec.overwrite:
                self._fraction_before = before.spec.files.val_fraction or 0.0
            self._files = self.resume.files
            self.context = context = context.with_files(self._files)
            self._info = replace(info, spec=replace(spec, files=self._files))
            self._run_files = [(name, file) for name in spec.formats for file in run_files(name, context)]
            for _, file in self._run_files:
                file.refuse_changed()
            if spec.shard is None:  # else another shard may have written it, with the same content
                context.ownership.refuse_changed(context.output / CLASSES_FILE)
            refuse_in_the_way(self.resume, refs)
            self.moved = move_files(self.state, context)
            if spec.overwrite:
                self._overwrite()
                self.moved = 0
            self._stack = stack.pop_all()

    @property
    def formats(self) -> tuple[str, ...]:
        return self._info.spec.formats

    @property
    def begun(self) -> bool:
        """Return True if an earlier run with the same settings wrote the first records."""
        same = self.resume.of_the_same and self._files.val_fraction == self._fraction_before
        return same and (self.context.output / CLASSES_FILE).exists()

    @property
    def finished(self) -> bool:
        """Return True if an earlier run with the same settings finished, and this run has added nothing."""
        return (
            self.begun
            and self._record.ended is not None
            and not self.state.stale.intersection(self.formats)
            and not self.state.failures()
            and not (self.state.broken_off or self.state.changed or self.state.unreadable)
            and self.state.exported
            and not self.resume.lost
            and all(path.exists() for path in self.run_paths)
        )

    @property
    def run_paths(self) -> list[Path]:
        """Return the files for the whole run; if no image is labelled, only classes.json and existing files."""
        return [*(file.path for _, file in self._due_files()), self.context.output / CLASSES_FILE]

    def _due_files(self) -> list[tuple[str, RunFile]]:
        some = len(self.state) > 0
        return [(name, file) for name, file in self._run_files if some or os.path.lexists(file.path)]

    def begin(self, info: RunInfo) -> None:
        """Write the first records: classes.json, and run.json, which marks the masks as outputs.

        Args:
            info: The run, from `Engine.start`, with `image_root` and `started`.
        """
        context = self.context
        self._info = replace(info, spec=replace(info.spec, files=self._files))
        self.resume.settle(self._info)
        # An unfinished conversion stays unfinished.
        before = self._record
        self._record = replace(
            self._info,
            converting=before.converting,
            lost=before.lost,
            kept=before.kept,
        )
        vocabulary = info.vocabulary or info.spec.vocabulary
        meanings = classes_json(context.classes, vocabulary.background_texts)
        context.ownership.write_run_file(context.output / CLASSES_FILE, meanings)
        write_run(context.ownership, self._record)

    def add(self, labelled: Labelled) -> Labelled | Failed:
        """Move an image's files into place and record it; return the failure if another file is in the way."""
        before = self.state.get(labelled.ref.name)
        try:
            put_in_place(labelled.ref, labelled.staged, self.context, self.resume.former(labelled.ref, before))
        except ImageError as error:
            return Failed(labelled.ref, error)
        entry = self.resume.with_other_formats(labelled.entry, before)
        outdated = [] if before is None else [name for name in before.formats if name not in entry.formats]
        if before is not None:  # the older labels must not pass for the new ones
            remove_files(before, outdated, self.context, self._record.spec.files)
            remove_former_parts(before, entry, self.context, edited=self._info.spec.replace_edited)
        self.state.add(entry, labelled.rows, stale=outdated)
        return labelled

    def keep(self, unchanged: Unchanged) -> None:
        """Record the current path of an unchanged image."""
        ref, entry = unchanged.ref, unchanged.entry
        context = self.context
        restore_links(context, ref, [name for name in self._info.spec.formats if name in entry.formats])
        if entry.path != input_path(ref):
            self.state.add(replace(entry, path=input_path(ref)))
        self.state.mend(ref.name)

    def fail(self, failed: Failed) -> None:
        """Record that an image failed; its labels from an earlier run stay."""
        self.state.fail(Failure.of(failed.ref, failed.error))

    def finish(self, counts: Counts, batch_size: int | None) -> None:
        """Write the final records. Raises OutputError if files of this run were removed meanwhile."""
        context = self.context
        if self.state.is_removed():  # the last records would be wrong
            raise _removed(self.state.path)
        removed = self._removed_file()
        for name in dict.fromkeys(name for name, _ in self._due_files()):
            write_run_files(name, context, self.state, rewrite=not self.resume.of_the_same)
        self._write_outdated()
        self.state.forget_failures()
        self._record = replace(
            self._record,
            spec=replace(self._record.spec, formats=self.formats),
            # The files for the whole run in these formats are complete now.
            converting=tuple(name for name in self._record.converting if name not in self.formats),
            ended=datetime.now(UTC),
            counts=counts,
            batch_size=self._record.batch_size if batch_size is None else batch_size,
            lost=self._record.lost or self.resume.incomplete_for_good,
            summary=self.totals().record(),
        )
        write_run(context.ownership, self._record)
        self.state.end(context.ownership.record())
        if removed is not None:
            raise _removed(removed)

    def _write_outdated(self) -> None:
        """Update the files for the whole run in formats that images have left."""
        context, state = self.context, self.state
        for name in state.stale.difference(self.formats):
            for file in run_files(name, context):
                if file.path.exists() and context.ownership.is_unchanged(file.path):
                    holders = state.with_rows(name) if file.has_rows else state.holding(name)
                    file.write(holders, partial(self._rows, name))
            if name not in self._record.converting:
                state.mark_fresh(name)

    def _rows(self, name: str, image: str) -> Rows:
        return self.state.rows(name, image) or ()

    def _removed_file(self) -> Path | None:
        """Return this run's first missing per-image file; None if all exist."""
        context = self.context
        for file in self.state.added_files():
            path = actual_path(context.output, file)
            if not os.path.lexists(path):
                return path
        return None

    def totals(self) -> Totals:
        """Return the totals over all images in the folder. Call this once all are labelled."""
        if self._totals is None:  # compute once: this reads all entries
            self._totals = total(self.state.summaries(), self.context.classes)
        return self._totals

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:  # remove per-image files that are not in place yet
            clean_up_run(self.path, self.state.folder, self.context.owner)
        self._stack.close()

    def _overwrite(self) -> None:
        """Remove an earlier run's files, except edited ones. Corrected masks remain corrections."""
        context, ownership, before = self.context, self.context.ownership, self.resume.before
        self.state.begin()
        corrected: list[tuple[ManifestEntry, dict[str, Rows]]] = []
        for entry in self.state.entries():
            options, edited = self._record.spec.files, self._info.spec.replace_edited
            left = remove_files(entry, entry.formats, context, options, edited=edited)
            paths = {name: actual_path(context.output, place) for name, place in entry.files.items()}
            # A format with rows stays only with its rows, and only if this run writes its file for the whole run.
            formats = [name for name in self.formats if FORMATS[name].has_rows] if left else []
            rows = {name: self.state.rows(name, entry.image) for name in formats}
            stays = {name for name in paths if name in FORMATS}  # a mask has no parts
            stays = {name for name in stays if rows.get(name) is not None or not FORMATS[name].has_rows}
            expected = expected_files(entry, stays, self._files)
            stays = {name for name in stays if paths[name] in left and expected[name] == entry.files[name]}
            if mask := next((paths[name] for name in mask_formats() if name in stays), None):
                left_entry = replace(entry.without(set(entry.formats) - stays), digest=self._info.digest)
                corrected.append((left_entry, {name: each for name in stays if (each := rows.get(name)) is not None}))
                again = {digest_of(mask)}
                left = [paths[name] for name in paths if name not in stays and not ownership.remove(paths[name], again)]
            self.kept += left
        self.kept += ownership.remove_pending()
        ownership.remove_run_files()
        kept = {*self.kept, *(path for path in self.resume.kept if os.path.lexists(path))}
        places = tuple(sorted(printable_path(path.relative_to(context.output)) for path in kept))
        if before is not None:
            # Record the kept files before removing the images, so that a kill in between loses neither.
            nothing = replace(before, ended=None, counts=Counts(), summary={}, converting=(), lost=False)
            write_run(ownership, replace(nothing, kept=places))
        self.state.replace(corrected)
        self._record = replace(self._info, kept=places)
        self.resume.start_over(kept)


def _clean_up_before(spec: RunSpec) -> None:
    if spec.shard is not None:
        clean_up([spec.output], spec.owner)
    clean_up_run(spec.output, spec.state, spec.owner)


def _removed(path: Path) -> OutputError:
    return OutputError(path, "it was removed during the run", "Run the same command again.")


def clean_up_run(output: Path, state: Path, owner: str = "") -> None:
    """Remove temporary files from a run's folders, except those that a run or a merge resumes from; see `files.clean_up`."""
    clean_up([state, state / STATE_FOLDER], keep={LOCK_FILE, MERGE_FILE})
    clean_up_below((place / folder for place in {output, state} for folder in image_folders()), owner)
