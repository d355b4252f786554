"""The output folder of a run: lock it, reject another question, record images, and finish.

with open_folder(spec) as folder:              # locked, read and planned; another question is rejected
    for item in map(folder.triage, images):    # what becomes of each image (see `resume.decide`)
        folder.begin(info)                     # once, before the first image that is labelled
        folder.record(result)
    folder.finish(counts)                      # derived files, files for the whole run, exports
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from hashlib import sha256
from pathlib import Path

from tipsseg.errors import ImageError, OtherRunError, OutputError
from tipsseg.formats import FORMATS, check_formats, file_path, format_name, image_folders, is_model_only
from tipsseg.formats.classes_file import CLASSES_FILE, classes_json
from tipsseg.images.access import stamp_source
from tipsseg.options import MAX_PIXELS
from tipsseg.run.entry import Correction, Entry, Failure, FileRow, input_path
from tipsseg.run.file_names import name_key, refuse_shared
from tipsseg.run.files import MOVE, Files, StagedFile, discard, one_image
from tipsseg.run.labels import adopt_mask, label_rows
from tipsseg.run.lock import LOCK_FILE, FolderLock
from tipsseg.run.plan import Begun, plan_run
from tipsseg.run.question import (
    MODEL_FACTS,
    merged_info,
    other_question,
    refuse_other_ids,
    run_of_shard,
    share_run,
    shared_run,
    with_classes_of,
)
from tipsseg.run.read import Run, RunImage, refuse_lost_record, refuse_shards, require_run
from tipsseg.run.record import run_context, run_record, stored_run, write_run
from tipsseg.run.results import Derived, Deriver, ImageResult, Labelled, Triaged, Unchanged, picture_key
from tipsseg.run.resume import NEW, SCORES, Todo, decide, is_edited
from tipsseg.run.spec import Counts, RunInfo, RunSpec, check_hint, with_classes
from tipsseg.run.state import EXPORTS, STATE_FILE, STATE_FOLDER, State
from tipsseg.run.summary import TotalsSum
from tipsseg.types import Failed, ImageRef
from tipsseg.util.files import clean_up, clean_up_below, remove_file

#: The reason for not writing a file of another program.
NOT_OURS = "tipsseg did not write this file"

#: The hint for a mask that a person saved while `tipsseg correct` ran.
EDITED_MEANWHILE = "It counts as corrected by you; the same command with argument `replace_edited` replaces it."


class OutputFolder(Run):
    """The folder of a run that labels images or changes it. It is locked until it is closed, but for a dry run.

    Attributes:
        path: The folder.
        before: The run that the folder recorded; None for a new folder.
        starting_over: True if the run replaces the labels of the folder.
        is_new: True if neither the folder nor other shards record a run.
        asked: The run as it was requested, without what the folder knows.
        refusal: The error if the run answers another question than the folder; else None.
        reasons: The number of images that were labelled, by reason.
        copies: The number of images that were copied into folders of formats, by folder.
        copied_bytes: Their size in bytes.
        refused: Files that were not written, because a person or another program put them there, with the reasons.
        taken: Files for the whole run that this command took in.
    """

    def __init__(
        self,
        info: RunInfo,
        state: State,
        before: RunInfo | None,
        read_whole: Callable[[], Run | None] = lambda: None,
    ) -> None:
        super().__init__(info, state)
        self.path = info.spec.folder
        self.before, self._read_whole = before, read_whole
        self.refusal: OtherRunError | None = None
        self.asked = info
        self.reasons, self.copies, self.copied_bytes = Counter[str](), Counter[str](), 0
        self.refused: dict[Path, str] = {}
        self.taken: set[Path] = set()
        self._todo: dict[str, str] = {}
        self.starting_over, self.is_new = False, False
        self._labels_before = run_context(before or info)
        self.deriver = Deriver(self.context)

    @cached_property
    def whole(self) -> Run | None:
        """Of a shard, the run in the output folder, which is read at its first use; else None."""
        return self._read_whole()

    def change(self, info: RunInfo) -> None:
        """Set the run, before the first image."""
        self.info = info
        self.context = run_context(info)
        self.deriver = Deriver(self.context)

    def follow(self) -> None:
        """Let what the run is given be found by the names that images had before."""
        if self.info.spec.given is not None:
            self.info.spec.given.follow(self.former())

    # ---- images ----

    def triage(self, item: ImageRef | Failed) -> Triaged:
        """Return an image that must be labelled, or its result. Thread-safe."""
        if isinstance(item, Failed):
            return item
        entry, rows = self.state.get(item.name), self.state.files(item.name)
        if self.starting_over and entry is not None and not (entry.corrected or self._was_edited(entry, rows)):
            entry, rows = None, {}
        decision = decide(item, entry, rows, self.info.spec, self.files, self.context)
        if isinstance(decision, Todo):
            self._todo[item.name] = decision.reason
            return item
        return decision

    def is_elsewhere(self, ref: ImageRef) -> bool:
        """Return True if the run that a shard belongs to has an image's labels, or a killed merge was about to move them there."""
        if self.whole is None:
            return False
        state, files = self.whole.state, self.whole.files
        if ref.name in self.state and state.is_arriving(ref.name):
            return True
        decision = decide(ref, state.get(ref.name), state.files(ref.name), self.info.spec, files, self.whole.context)
        return not isinstance(decision, Todo)

    def reason(self, ref: ImageRef) -> str:
        """Return why an image is to be labelled, once `triage` decided so."""
        return self._todo.get(ref.name, NEW)

    def _was_edited(self, entry: Entry, rows: Mapping[str, FileRow]) -> bool:
        return is_edited(entry, label_rows(rows, self._labels_before), self.files)

    def record(self, result: ImageResult) -> ImageResult:
        """Put an image's files in place and record it. Return the result, or what became of it; see `fail` for a Failed."""
        try:
            match result:
                case Labelled(ref, _, labels, derived):
                    with one_image(ref, [*labels, *derived.files]):
                        return self._add(result)
                case Unchanged():
                    return self._keep(result)
        except ImageError as error:
            return Failed(result.ref, error)
        return result

    def _keep(self, unchanged: Unchanged) -> Unchanged:
        """Record the address of an image whose labels stay; a mask that a person changed in place becomes a correction."""
        ref, entry, labels = unchanged.ref, unchanged.entry, tuple[FileRow, ...]()
        if entry.path != input_path(ref):
            entry = replace(entry, path=input_path(ref))
        rows = self.state.files(ref.name) if unchanged.edited else {}
        if is_edited(entry, label_rows(rows, self.context), self.files):
            current = adopt_mask(self.context, entry, rows)
            entry, labels = current.entry, current.rows
        if entry is not unchanged.entry:
            self.state.add(entry, labels, {})
        self.state.mend(ref.name)
        return replace(unchanged, entry=entry)

    def _add(self, labelled: Labelled) -> ImageResult:
        ref, entry, labels = labelled.ref, labelled.entry, labelled.labels
        reason = self._todo.pop(ref.name, NEW)
        before, rows = self.state.get(ref.name), self.state.files(ref.name)
        if before is not None:
            entry = replace(entry, formats=tuple(dict.fromkeys((*entry.formats, *before.formats))))
            known = label_rows(rows, self.context)
            digests = {(row.name, digest) for row in known for digest in (row.digest, row.pending)}
            if reason == SCORES and (
                len(labels) != len(known) or any((each.row.name, each.row.digest) not in digests for each in labels)
            ):
                what = "the model labels it otherwise now, so its scores would not belong to the labels of this folder"
                raise ImageError(ref.path, what, "Remove its mask, and run the same command again.")
        replace_edited, edited = self.info.spec.replace_edited, False
        for file in labels:
            row = rows.get(file.row.place)
            if not self.files.may_put(file, row, replace_edited=replace_edited and row is not None):
                if row is None or before is None or row.digest is None:
                    raise self._in_the_way(ref, file)
                edited = True
        if edited:
            if before is None:
                raise self._in_the_way(ref, labels[0])
            discard([*labels, *labelled.derived.files])
            return Unchanged(ref, before, "edited by hand")
        self.put(ref, entry, labels, labelled.derived, rows)
        self.reasons[reason] += 1
        return replace(labelled, entry=entry, reason=reason)

    def fail(self, failed: Failed) -> None:
        """Record that an image failed; its labels from an earlier run stay."""
        self.state.fail(Failure.of(failed.ref, failed.error))

    def _in_the_way(self, ref: ImageRef, file: StagedFile) -> ImageError:
        path, owner = self.files.path(file.row.place), self.state.owner(file.row.place)
        if ref.name in self.state and not label_rows(self.state.files(ref.name), self.context):
            return ImageError(ref.path, f"{path} exists, but the record of the image lacks it", check_hint(self.path))
        if owner is not None and owner != ref.name:
            full = "Rename one of the two images, or keep the image suffixes in file names with argument `names`=full."
            return ImageError(ref.path, f"{path} has the labels of another image, {owner}", full)
        return ImageError(ref.path, f"{path} exists, and tipsseg did not write it for this image", MOVE)

    def put(
        self,
        ref: ImageRef,
        entry: Entry,
        labels: Sequence[StagedFile],
        derived: Derived,
        rows: Mapping[str, FileRow],
        *,
        coming: str | None = None,
    ) -> list[Path]:
        """Put the files of an image in place, and record it. Return the paths of the files in place.

        Files of a person or of another program stay (see `refused`); the label files are approved already.

        Raises:
            ImageError: A file cannot have its name.
            OutputError: The folder cannot be written.
        """
        with one_image(ref, [*labels, *derived.files]):
            files, kept, foreign = [*labels], set[str](), set[str]()
            for file in derived.files:
                row = rows.get(file.row.place)
                if self.files.may_put(file, row):
                    files.append(file)
                    continue
                file.discard()
                kept.add(file.row.place)
                if row is None or row.digest is None:  # `settle` names those that a person changed
                    foreign.add(format_name(file.row.name))
                    self._refuse(self.files.path(file.row.place), row)
            self.state.expect(ref.name, [self.files.expected(each, rows.get(each.row.place)) for each in files], coming)
            written = [replace(note, shows="") if note.name in foreign else note for note in derived.notes]
            for name, place in derived.pictures.items():
                picture = self.files.put_picture(ref, picture_key(name), place, rows.get(self.files.place(place)))
                if picture is None:
                    self._refuse(place, None)
                else:
                    self.copies[f"{FORMATS[name].picture_folder}/"] += 1
                    self.copied_bytes += picture.size
                    written.append(replace(picture, shows=self.deriver.picture_of(entry)))
            for file in files:
                path = self.files.path(file.row.place)
                if self.files.put(file):
                    written.append(file.row)
                elif file in labels:
                    what = f"{path} changed while the command ran, so it was kept"
                    raise ImageError(
                        ref.path, what, "Run the same command again." if coming is None else EDITED_MEANWHILE
                    )
                else:
                    file.discard()
                    kept.add(file.row.place)
            places = {row.place for row in written} | kept
            replaced = {*derived.formats, *(each.row.name for each in labels)}
            left = [row for row in rows.values() if row.place not in places and format_name(row.name) in replaced]
            gone = [row.place for row in left if self.files.remove(row, edited=row.name == self.context.mask_format)]
            self.state.add(entry, written, derived.rows, gone)
            return [self.files.path(each.row.place) for each in files if each.row.place not in kept]

    def _remove(self, rows: Iterable[FileRow]) -> list[str]:
        """Remove files as tipsseg wrote them, and return the places to forget; others stay, and are rejected."""
        gone = []
        for row in rows:
            if self.files.remove(row):
                gone.append(row.place)
            else:
                self._refuse(self.files.path(row.place), row)
        return gone

    def _refuse(self, path: Path, row: FileRow | None) -> None:
        self.refused[path] = NOT_OURS if row is None or row.digest is None else "changed by hand"

    # ---- the run ----

    @property
    def begun(self) -> bool:
        """Return True if an earlier run with the same settings wrote the first records."""
        if self.before is None or self.starting_over or not len(self.state):
            return False
        before, spec = self.before.spec, self.info.spec
        facts = before.formats, before.files, before.vocabulary.specs
        return facts == (spec.formats, spec.files, spec.vocabulary.specs)

    @property
    def finished(self) -> bool:
        """Return True if an earlier run finished, and this process has changed nothing."""
        return (
            self.begun
            and self.before is not None
            and self.before.ended is not None
            and not (self.state.changed or self.state.broken_off or self.state.failures())
            and not self.state.altered_exports()
            and self.files.look(self.state.files().get(CLASSES_FILE), CLASSES_FILE) == "ours"
        )

    def begin(self, info: RunInfo) -> None:
        """Record the run before its first image; with `overwrite`, forget the images that nobody corrected.

        `info` is the run with what is known of the model and the images.
        """
        names = (*MODEL_FACTS, "device", "dtype_reason", "dropped", "started", "batch_size")
        background = (info.vocabulary or info.spec.vocabulary).background
        vocabulary = replace(self.info.spec.vocabulary, background=background, auto=False)
        self.change(replace(self.info, **{name: getattr(info, name) for name in names}, vocabulary=vocabulary))
        if self.info.spec.shard is not None:
            share_run(self.info)
        self.state.begin()
        if over := self.starting_over:
            self._start_over()
        elif self.before is not None and (added := set(self.info.spec.formats) - {*self.before.spec.formats}):
            refuse_shared(self.path, info.spec.files.names, added, self.state.names())
            self.state.cover(name for name in self.info.spec.formats if name in added)
        self._write_classes()
        self.write_record()
        if over:
            self.state.set_meta("overwriting", self.info.digest)  # a killed command goes on from here

    def _write_classes(self) -> None:
        vocabulary = self.info.vocabulary or self.info.spec.vocabulary
        found = self.info.summary.get("classes", ())
        asked = {each["id"]: each["asked"] for each in found if "asked" in each} if isinstance(found, list) else {}
        content = classes_json(self.context.classes, vocabulary.background_texts, asked)
        path, shows = self.path / CLASSES_FILE, sha256(content).hexdigest()[:32]
        row = self.state.files().get(CLASSES_FILE)
        if row is None or row.shows != shows or self.files.look(row) != "ours":
            self.write_file(path, content, "classes", shows)

    def write_record(self) -> None:
        self.state.set_meta("run", run_record(self.info))
        write_run(self.info, self.state.files().values())

    def _start_over(self) -> None:
        """Forget all images that nobody corrected, and remove their files. Go on if an earlier command was killed here."""
        for entry, rows in self.state.images():
            if not entry.corrected and self._was_edited(entry, rows):
                self.state.add(entry.with_correction(Correction()), (), {})
        if self.before is not None:
            self.state.set_meta("run", run_record(replace(self.before, ended=None)))
        self.state.forget_images()
        self.state.forget([entry.image for entry in self.state.entries() if entry.undone])
        formats = self.info.spec.formats
        for entry, rows in self.state.images():
            left = [row for row in rows.values() if format_name(row.name) not in formats]
            if entry.formats != formats or left:
                self.state.add(replace(entry, formats=formats), (), {}, self._remove(left))
        left = [row for row in self.state.files().values() if row.name not in ("classes", *formats)]
        self.state.set_files("", (), self._remove(left))
        self.clear_orphans()
        self.starting_over = False

    def forget(self, name: str) -> None:
        """Remove an image, corrected or not, with its label files; `settle` clears the others."""
        rows = label_rows(self.state.files(name), self.context)
        for row in rows:
            self.files.remove(row, edited=True)
        self.state.set_files(name, (), [row.place for row in rows])
        self.state.forget([name])

    def clear_orphans(self) -> None:
        """Remove the files of images that are not recorded any more, as tipsseg wrote them; others stay, and are rejected."""
        for image, row, is_held in self.state.orphans():
            self.state.set_files(image, (), [row.place] if is_held else self._remove([row]))

    def rename(self, image: RunImage, ref: ImageRef) -> None:
        """Give the labels of an image to its picture of now, which has another name: with its correction and its scores.

        Files of other formats are written again by `settle`. A killed command leaves both names, and `find_moves` finds them again.

        Raise ImageError if its labels are missing, or another file has the name of one.
        """
        current, key = image.current(), name_key(self.path)
        if image.edited:
            current = adopt_mask(self.context, image.entry, image.rows)
            self.state.add(current.entry, current.rows, {})  # a killed command then finds it under both names
        fingerprint = replace(current.entry.input, mtime_ns=stamp_source(ref.path).mtime_ns)
        entry = replace(current.entry, image=ref.name, path=input_path(ref), input=fingerprint)
        labels, scores, stay = list[StagedFile](), list[StagedFile](), dict[str, FileRow]()
        for row in {**image.rows, **{row.place: row for row in current.rows}}.values():
            is_label, path = row.name == self.context.mask_format, self._path_of(row, ref)
            if path is None:
                continue
            old, place = self.files.path(row.place), self.files.place(path)
            if key(place) == key(row.place):  # the suffix of the picture changed, or the case of a letter
                if place != row.place and os.path.lexists(old):
                    old.rename(path)
                edited = self.files.look(row) in ("edited", "taken")
                stay[place] = replace(row, place=place, shows=row.shows if is_label or edited else "")
            elif is_label or is_model_only(row.name):
                staged = labels if is_label else scores
                staged.append(self.files.stage(row.name, path, partial(shutil.copyfile, old), row.shows))
        with one_image(ref, [*labels, *scores]):
            if blocked := [file for file in labels if not self.files.may_put(file, None)]:
                raise self._in_the_way(ref, blocked[0])
            self.put(ref, entry, labels, Derived(files=tuple(scores)), stay)
        self.state.set_files(image.entry.image, current.rows)  # copied as they are, so the old ones can go
        self.state.hand_over(image.entry.image, ref.name, stay.values())

    def _path_of(self, row: FileRow, ref: ImageRef) -> Path | None:
        """Return the path that a file would have as another image's; None if it is no file of its own."""
        path = file_path(row.name, ref.relative, self.context.files) if row.is_file else None
        return None if path is None else self.path / path

    def write_file(self, path: Path, data: bytes | Iterable[bytes], name: str, shows: str) -> bool:
        """Write a file for the whole run, unless a person changed it; return False then."""
        row = self.state.files().get(self.files.place(path))
        file = self.files.stage(name, path, data, shows)
        if self.files.may_put(file, row):
            self.state.expect("", [self.files.expected(file, row)])
            if self.files.put(file):
                self.state.set_files("", [file.row])
                return True
        file.discard()
        self._refuse(path, row)
        return False

    def abandon(self) -> None:
        """Remove the records of a new folder in which nothing was labelled, and nothing failed; other files stay."""
        if not self.state.changed:
            return
        wrote_classes = self.files.look(self.state.files().get(CLASSES_FILE), CLASSES_FILE) == "ours"
        self.state.close()
        clean_up_folder(self.path)
        for name in (
            *EXPORTS,
            *([CLASSES_FILE] * wrote_classes),
            *(f"{STATE_FILE}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")),
        ):
            remove_file(self.path / name)
        for top in (*image_folders(), STATE_FOLDER):
            for folder, _, _ in os.walk(self.path / top, topdown=False):
                with suppress(OSError):  # it is not empty
                    Path(folder).rmdir()

    def finish(self, counts: Counts) -> None:
        """Write the last records. Raise OutputError if the record was removed meanwhile."""
        if not self.state.path.exists():
            raise OutputError(self.state.path, "it was removed during the run", "Run the same command again.")
        self.state.forget_failures()
        if self.state.meta("overwriting") is not None:
            self.state.set_meta("overwriting", None)
        self.info = replace(self.info, ended=datetime.now(UTC), counts=counts)
        self.finish_changes()

    def finish_changes(self) -> None:
        """Write the last records of a command that changed a finished run. Raise OutputError if that fails."""
        self.info = replace(self.info, summary=self.totals().record())
        former = {name: names for name, names in self.state.former.items() if name in self.state}
        if former != self.state.former:  # another picture may get the name of one that was removed
            self.state.set_meta("former", former)
        self._write_classes()
        self.write_record()
        self.state.end()
        if self.state.meta("removing") is not None:
            self.state.set_meta("removing", None)

    def shown_files(self, image: str) -> dict[str, Path]:
        """Return the files of an image by key, without links."""
        files = shown_files(self.state.files(image), self.files)
        return {name: path for name, path in files.items() if format_name(name) in self.context.formats}

    def add_classes(self, names: Sequence[str]) -> None:
        """Add classes to the question that the folder answers. Raise InputError if a name is invalid."""
        info = with_classes(self.info, names)
        check_formats(info.spec.formats, info.spec.vocabulary.classes)
        self.change(info)
        self._write_classes()
        self.write_record()

    def drop(self, name: str) -> None:
        """Remove the files of a format as tipsseg wrote them, and the format from all images. Other files are rejected."""
        for image in ("", *self.state.names()):
            rows = self.state.files(image).values()
            self.state.set_files(image, (), self._remove(row for row in rows if format_name(row.name) == name))
        self.state.drop(name)

    @property
    def run_paths(self) -> list[Path]:
        """Return the existing files for the whole run, classes.json last."""
        files = [file for name in self.context.formats for file in FORMATS[name].files]
        return [path for name in (*files, CLASSES_FILE) if (path := self.path / name).exists()]

    @property
    def unwritten(self) -> list[Path]:
        """Return the files of other programs, and files for the whole run that a person changed, which are in the way."""
        files = {self.path / file for form in FORMATS.values() for file in form.files} | {self.path / CLASSES_FILE}
        return [path for path, reason in self.refused.items() if reason == NOT_OURS or path in files]

    def totals(self) -> TotalsSum:
        """Return the totals over all images in the folder."""
        totals = TotalsSum(self.context.classes)
        for entry in self.state.entries():
            totals.add(entry.summary)
        return totals


def shown_files(rows: Mapping[str, FileRow], files: Files) -> dict[str, Path]:
    """Return the files of an image by key, without links."""
    return {row.name: files.path(row.place) for row in rows.values() if row.is_file}


@contextmanager
def open_folder(spec: RunSpec) -> Iterator[OutputFolder]:
    """Lock the folder of a run, read its record, and plan the run (see `plan_run`). Nothing is written before `begin`.

    Raises:
        OtherRunError: The folder answers another question.
        OutputError: Another process uses the folder, a link leads out of it, or corrected masks would change their meaning.
        RecordError: The record of the folder is missing or damaged.
        TipssegError: The run cannot be planned.
    """
    Files(spec.output).refuse_outside(spec.folder / STATE_FILE)
    with locked_state(spec.folder) as state, ExitStack() as stack:
        folder = _planned(spec, state, stack)
        try:
            if folder.refusal is not None:
                raise folder.refusal
            if folder.starting_over and folder.before is not None:
                refuse_other_ids(folder.before, folder.info, state)
        except OtherRunError as error:
            if folder.before is not None:
                _add_corrections(error, folder, folder.before)
            raise
        try:
            yield folder
        except BaseException:
            if folder.is_new and not len(state) and not state.failures():
                folder.abandon()
            raise


def _add_corrections(error: OtherRunError, folder: OutputFolder, before: RunInfo) -> None:
    """Add to the error of another question what it means for corrected masks."""
    error.corrected = sum(image.corrected for image in Run(before, folder.state).images())
    try:
        refuse_other_ids(before, folder.asked, folder.state)
    except OtherRunError:
        error.fits = False


@contextmanager
def peek_folder(spec: RunSpec) -> Iterator[OutputFolder]:
    """Read the folder of a run, and plan the run as `open_folder` does, to see what it would do. Its `refusal` is not raised."""
    refuse_lost_record(spec.folder)
    with closing(State(spec.folder)) as state, ExitStack() as stack:
        yield _planned(spec, state, stack)


def _planned(spec: RunSpec, state: State, stack: ExitStack) -> OutputFolder:
    """Return the folder of a run, with what it and the folders of its other shards record."""
    before, shared = stored_run(state), shared_run(spec.output)

    @cache
    def read_whole() -> Run | None:
        if spec.shard is None:
            return None
        other = stack.enter_context(closing(State(spec.output)))
        found = stored_run(other)
        return None if found is None else Run(found, other)

    whole = None if before or shared else read_whole()
    begun = Begun(own=before, shared=shared, whole=None if whole is None else whole.info)
    info = asked = plan_run(spec, begun)
    others = run_of_shard(spec, begun)
    known = before or others
    over, refusal = spec.overwrite and state.meta("overwriting") != info.digest, None  # else a killed command goes on
    if known is not None:
        info = with_classes_of(known, info)
        asked = info
        if not over:
            refusal = other_question(known, info) if len(state) or others is not None else None
            info = merged_info(info, known)
    folder = OutputFolder(info, state, before, read_whole)
    folder.asked = asked
    folder.follow()
    folder.refusal, folder.starting_over, folder.is_new = refusal, over and before is not None, begun.first is None
    return folder


@contextmanager
def change_folder(output: Path, *, max_pixels: int = MAX_PIXELS) -> Iterator[OutputFolder]:
    """Lock the folder of a finished run to change it. Raise RecordError, or OutputError if another process uses it."""
    with locked_state(output) as state:
        refuse_shards(state)
        info = require_run(state, max_pixels=max_pixels)
        yield OutputFolder(info, state, info)


@contextmanager
def locked_state(folder: Path) -> Iterator[State]:
    """Lock a folder and open its record. Remove temporary files of killed processes, and after an error this one's."""
    refuse_lost_record(folder)
    lock = FolderLock(folder)
    try:
        if lock.left_over:
            clean_up_folder(folder)
        with closing(State(folder)) as state:
            yield state
    except BaseException:
        clean_up_folder(folder)
        raise
    finally:
        lock.give_back()


def clean_up_folder(folder: Path) -> None:
    """Remove temporary files."""
    clean_up([folder, folder / STATE_FOLDER], keep={LOCK_FILE})
    clean_up_below(folder / name for name in image_folders())
