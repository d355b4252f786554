"""The output folder of a run: lock it, reject another question, put masks in place, and finish.

with open_folder(spec) as folder:              # locked, looked at and planned; another question is rejected
    for item in map(folder.triage, images):    # what becomes of each image (see `decide.decide`)
        folder.begin(info)                     # once, before the first image that is labelled
        folder.record(result)
    folder.finish(counts)                      # files for the whole run
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from tipsseg.errors import DeviceError, ImageError, OtherRunError, OutputError
from tipsseg.folder.cache import CACHE_FILE, CACHE_FOLDER, Cache, cache_name
from tipsseg.folder.decide import NEW, SCORES, Todo, decide
from tipsseg.folder.entry import (
    EDITED,
    LOOSE,
    MANIFEST_FILE,
    SEALED,
    Entry,
    Failure,
    Failures,
    FileRow,
    input_path,
    recorded_ref,
)
from tipsseg.folder.files import Judge, StagedFile, digest_of, one_image
from tipsseg.folder.labels import (
    PNG,
    is_same_picture,
    read_entry,
    read_labels,
    read_picture_facts,
    unknown_labels,
)
from tipsseg.folder.lock import LOCK_FILE, FolderLock
from tipsseg.folder.moving import finish_moves, moving_images
from tipsseg.folder.names import refuse_shared
from tipsseg.folder.plan import plan_run
from tipsseg.folder.question import MODEL_FACTS, merged_info, other_question, refuse_other_ids, with_classes_of
from tipsseg.folder.read import Run, RunImage, finished_run, no_run_error
from tipsseg.folder.record import RUN_FILE, run_context, run_json, stored_run
from tipsseg.folder.results import Derived, Deriver, ImageResult, Labelled, Triaged, Unchanged, picture_key
from tipsseg.folder.spec import Counts, RunInfo, RunSpec, with_classes
from tipsseg.folder.summary import TotalsSum
from tipsseg.formats import FORMATS, check_formats, format_name, image_folders, is_model_only
from tipsseg.formats.blocks import BlockMask
from tipsseg.formats.classes_file import CLASSES_FILE, classes_json
from tipsseg.formats.mask import (
    MaskFacts,
    PictureFacts,
    envelope,
    facts_text,
    open_envelope,
    read_attached,
    read_sealed,
    seal,
)
from tipsseg.formats.png import encode_mask, read_painted_mask
from tipsseg.images.access import exists, identify, stamp_source
from tipsseg.options import DTYPE_NAMES, MAX_PIXELS
from tipsseg.options.values import Shard
from tipsseg.types import Failed, ImageRef
from tipsseg.util.files import RECORD_LIMIT, Fingerprint, atomic_write, clean_up, clean_up_below, remove_file, write_new
from tipsseg.util.json import json_bytes
from tipsseg.util.text import shell_word


class OutputFolder(Run):
    """The folder of a run that labels images or changes it. It is locked until it is closed, but for a dry run.

    Attributes:
        before: The run that the folder recorded; None for a new folder.
        starting_over: True if the run replaces the labels of the folder.
        asked: The run as it was requested, without what the folder knows.
        refusal: The error if the run answers another question than the folder; else None.
        reasons: The number of images that were labelled, by reason.
        copies: The number of images that were copied into folders of formats, by folder.
        copied_bytes: Their size in bytes.
        failed: The images that failed.
        changed: True once this process has changed anything.
        totals: The totals of the images, once the folder is settled.
    """

    def __init__(self, info: RunInfo, cache: Cache, before: RunInfo | None) -> None:
        super().__init__(info, cache)
        self.path, self.before, self.asked = self.output, before, info
        self.refusal: OtherRunError | None = None
        self.reasons, self.copies, self.copied_bytes = Counter[str](), Counter[str](), 0
        self.failed = Failures(self.path, info.spec.shard)
        self.starting_over = self.changed = False
        self._committed = time.monotonic()
        self._todo: dict[str, str] = {}
        self.deriver, self.totals = Deriver(self.context), TotalsSum(self.context.classes)

    @property
    def is_new(self) -> bool:
        """Return True if the folder records no run."""
        return self.before is None

    def change(self, info: RunInfo) -> None:
        """Set the run, before the first image."""
        self.info = info
        self.context = run_context(info)
        self.deriver = Deriver(self.context)

    def look(self) -> bool:
        """See `Run.look`; the moves of a killed command are finished first."""
        if self.cache.lock is not None and self.info.spec.shard is None:
            if moving := moving_images(self.context):
                for image in moving:  # `settle` notes the scores again that lie there then
                    places = [row.place for row in self.cache.files(image).values() if is_model_only(row.name)]
                    self.cache.note_files(image, (), places)
                self.cache.commit()
            finish_moves(self.files, self.context)
        changed = super().look()
        self.changed |= changed
        return changed

    # ---- images ----

    def find(self, ref: ImageRef) -> Entry | None:
        """Return what the mask of an image says; None if there is none. Raise ImageError if it cannot be used. Thread-safe."""
        path = self.context.mask_path(ref)
        place = self.files.place(path)
        known = self.cache.get(ref.name) or self.cache.at(place)
        try:
            status = path.lstat()
        except OSError:
            return None
        if place in self.faults:
            raise self.faults[place]
        if known is not None and known.image == ref.name and known.place == place and known.is_of(status):
            return known
        entry = read_entry(self.context, place, known, partial(self._unlabelled, ref, place))
        if entry.image != ref.name:
            entry = self._taken_over(entry, ref, place)
        return replace(entry, path=entry.path or input_path(ref))

    def _unlabelled(self, ref: ImageRef, place: str) -> Entry | None:
        """Return what is known of an image whose mask says nothing; None if the image cannot be read."""
        if self.context.block_mask is not None:
            return None
        with suppress(ImageError, OSError, ValueError):
            picture = read_picture_facts(ref.path, self.reader)
            facts = unknown_labels(ref.name, self.reader.size(ref.path), picture, question=self.context.question)
            stamp = Fingerprint(0, 0, None)
            return Entry(mask=facts, place=place, stamp=stamp, sealed=b"", path=input_path(ref))
        return None

    def _taken_over(self, entry: Entry, ref: ImageRef, place: str) -> Entry:
        """Return the entry of a mask that names another image: of the same picture, or of a person who copied it here."""
        old = entry.mask
        if is_same_picture(entry, ref.path, self.reader):
            names = dict.fromkeys((*old.formerly, old.image))
            facts = replace(old, image=ref.name, formerly=tuple(name for name in names if name != ref.name))
            return replace(entry, mask=facts, state=max(entry.state, LOOSE), place=place)
        if self._is_at_home(entry):  # the labels of a.png, where a.jpg is another picture
            remove = f"tipsseg correct {shell_word(str(self.path))} --remove {shell_word(old.image)}"
            what = f"it has the labels of another image, {old.image}"
            raise ImageError(self.files.path(place), what, f"Remove the labels of that image: {remove}")
        new = self._unlabelled(ref, place)
        if new is None or new.mask.size != old.size:
            what = f"it is the mask of another image, {old.image}"
            raise ImageError(self.files.path(place), what, "Move it elsewhere; the image is then labelled.")
        facts = replace(old, image=ref.name, formerly=(), by="person", source="", picture=new.mask.picture)
        return replace(entry, mask=facts, state=EDITED, path=input_path(ref), input_mtime_ns=0)

    def triage(self, item: ImageRef | Failed) -> Triaged:
        """Return an image that must be labelled, or its result. Thread-safe."""
        if isinstance(item, Failed):
            return item
        try:
            entry = self.find(item)
        except ImageError as error:
            if not self.info.spec.replace_edited:
                return Failed(item, error)
            entry = None
        if self.starting_over and entry is not None and not entry.corrected:
            entry = None
        decision = decide(item, entry, self.info.spec, self.context)
        if isinstance(decision, Todo):
            self._todo[item.name] = decision.reason
            return item
        return decision

    def reason(self, ref: ImageRef) -> str:
        """Return why an image is to be labelled, once `triage` decided so."""
        return self._todo.get(ref.name, NEW)

    def record(self, result: ImageResult) -> ImageResult:
        """Put an image's files in place. Return the result, or what became of it; see `fail` for a Failed."""
        self._commit(_COMMITTED)
        try:
            match result:
                case Labelled(ref, _, mask, derived):
                    with one_image(ref, [*derived.files, *([] if mask is None else [mask])]):
                        return self._add(result)
                case Unchanged():
                    return self._keep(result)
        except ImageError as error:
            return Failed(result.ref, error)
        return result

    def _keep(self, unchanged: Unchanged) -> Unchanged:
        """Note where an image is whose labels stay; write into a mask that a person changed in place that it is theirs."""
        ref, entry = unchanged.ref, unchanged.entry
        if not unchanged.other_picture:
            with suppress(OSError, ValueError):
                entry = self._refreshed(entry, ref)
        if entry.path != input_path(ref):
            entry = replace(entry, path=input_path(ref))
        if entry.state != SEALED:
            entry = self.adopt(entry)
        if entry is not unchanged.entry or not self.cache.knows(entry):
            self.cache.note(entry)
            self.changed = True
        self.failed.mend(ref.name)
        return replace(unchanged, entry=entry)

    def _refreshed(self, entry: Entry, ref: ImageRef) -> Entry:
        """Return an entry with the time of its picture, and with the bytes of one with the same pixels. Raise OSError."""
        if stamp_source(ref.path).mtime_ns == entry.input_mtime_ns:
            return entry
        now = identify(ref.path)[0]
        entry = replace(entry, input_mtime_ns=now.mtime_ns)
        picture = replace(entry.mask.picture, bytes=now.size, sha256=now.sha256 or "")
        if picture == entry.mask.picture:
            return entry
        return replace(entry, mask=replace(entry.mask, picture=picture), state=max(entry.state, LOOSE))

    def adopt(self, entry: Entry) -> Entry:
        """Write into a mask what it is: one that a person changed, or that a program wrote in another way.

        A mask in another mode is written again in the mode of the folder, and the person's file goes to the trash.

        Raise ImageError if the mask changed since it was looked at.
        """
        path = self.files.path(entry.place)
        if (mask := self.context.block_mask) is not None:
            return self._adopt_blocks(mask, entry, path)
        labels, data = read_labels(self.context, entry), self.read_mask(entry)
        _, is_plain = read_painted_mask(path, entry.mask.size, self.classes, lambda _: True)
        png = data if is_plain else encode_mask(labels.labels, self.classes)
        ours = [str(entry.stamp.sha256)] if is_plain or not entry.edited else []
        return self._write_mask(entry, seal(png, entry.mask, entry.bulk.unpacked()), ours)

    def _adopt_blocks(self, mask: BlockMask, entry: Entry, path: Path) -> Entry:
        """Write into a mask of blocks what it is; it keeps the labels. Raise as `adopt` does."""
        digest = digest_of(path)
        if not path.is_file() or not entry.is_of(path.stat()):
            raise ImageError(path, "changed while the command ran", "Run the same command again.")
        with one_image(recorded_ref(entry), ()):
            write = partial(mask.copy_mask, path, facts=facts_text(entry.mask), scored=not entry.edited)
            row = (file := self.files.stage(mask.name, path, write, synced=True)).row
            self.files.put(file, [digest])
        new = replace(entry, state=SEALED, stamp=Fingerprint(row.size, row.mtime_ns, row.digest))
        self.cache.note(new)
        self.changed = True
        return new

    def read_mask(self, entry: Entry) -> bytes:
        """Return the content of a mask. Raise ImageError if it changed since it was looked at."""
        path = self.files.path(entry.place)
        with suppress(OSError):
            data = path.read_bytes()
            if sha256(data).hexdigest() == entry.stamp.sha256:
                return data
        raise ImageError(path, "changed while the command ran", "Run the same command again.")

    def rewrite(self, entry: Entry, facts: MaskFacts, bulk: Mapping[str, bytes]) -> None:
        """Write other facts into a mask. Raise ImageError if that fails."""
        self._write_mask(entry, seal(self.read_mask(entry), facts, bulk))

    def current_picture(self, entry: Entry) -> PictureFacts:
        """Return the picture that an image has now; the picture that was labelled if that is gone, or has another size."""
        path = self.image(entry.image).path(None)
        if entry.path and exists(path) and not is_same_picture(entry, path, self.reader):
            with suppress(ImageError, OSError, ValueError):
                if self.reader.size(path) == entry.mask.size:
                    return read_picture_facts(path, self.reader)
        return entry.mask.picture

    def restore(self, entry: Entry) -> bool:
        """Put the model's mask back in the place of a person's. Return False if it is not known, or answers another question.

        A person's mask with other labels goes to the trash.
        """
        data = entry.bulk.unpack("model", RECORD_LIMIT) or b""
        with suppress(ValueError):
            found = read_sealed(data)
            facts = found.facts
            if not found.intact or facts is None or facts.by_person or facts.question != self.context.question:
                return False
            names = tuple(name for name in entry.mask.formerly if name != entry.image)
            if (facts.image, facts.formerly) != (entry.image, names):
                data = seal(data, replace(facts, image=entry.image, formerly=names), found.unpacked())
            self._write_mask(replace(entry, packed=b""), data)
            return True
        return False

    def _write_mask(self, entry: Entry, data: bytes, ours: Sequence[str] = ()) -> Entry:
        """Write the mask of an image, and return its entry; `ours` are contents that may be destroyed (see `Files.put`)."""
        with one_image(recorded_ref(entry), ()):
            file = self.files.stage(PNG, self.files.path(entry.place), data, synced=True)
            new = replace(entry, state=SEALED, **written_mask(data, file.row))
            self.files.put(file, ours, replaceable(new.mask))
        self.cache.note(new)
        self.changed = True
        return new

    def _add(self, labelled: Labelled) -> ImageResult:
        ref, entry, reason = labelled.ref, labelled.entry, self.reason(labelled.ref)
        before = self.cache.get(ref.name)
        if reason == SCORES and before is not None and before.mask.labels != entry.mask.labels:
            what = "the model labels it otherwise now, so its scores would not belong to the labels of this folder"
            raise ImageError(ref.path, what, "Remove its mask, and run the same command again.")
        mask = labelled.mask
        if mask is not None and before is not None and before.mask.formerly and not self.context.block_mask:
            mask, entry = self._with_names(mask, entry, before.mask.formerly)
        if mask is not None:  # else another process has put it in place
            self.put(ref, entry, mask, labelled.derived, self.cache.files(ref.name))
        self.changed = True
        self._todo.pop(ref.name, None)
        self.reasons[reason] += 1
        self.failed.mend(ref.name)
        return replace(labelled, entry=entry, reason=reason)

    def _with_names(self, mask: StagedFile, entry: Entry, names: tuple[str, ...]) -> tuple[StagedFile, Entry]:
        """Write the names that an image had before into its staged mask. Return the mask and its entry."""
        data = seal(mask.temporary.read_bytes(), replace(entry.mask, formerly=names), entry.bulk.unpacked())
        mask.discard()
        new = self.files.stage(PNG, self.files.path(entry.place), data, synced=True)
        return new, replace(entry, **written_mask(data, new.row))

    def fail(self, failed: Failed) -> None:
        """Record that an image failed; its labels from an earlier run stay."""
        self.failed.add(Failure.of(failed.ref, failed.error))

    def put(
        self, ref: ImageRef, entry: Entry, mask: StagedFile | None, derived: Derived, rows: Mapping[str, FileRow]
    ) -> list[Path]:
        """Put the files of an image in place: what only the model can write, the mask, then the others. Return their paths.

        What tipsseg did not write, and a person's mask with other labels, goes to the trash; files that a person changed stay
        where the labels that they show are the same.

        Raises:
            ImageError: A file cannot have its name.
            OutputError: The folder cannot be written.
        """
        self.changed = True
        staged = [*derived.files, *([] if mask is None else [mask])]
        with one_image(ref, staged):
            first = [file for file in derived.files if is_model_only(file.row.name)]
            for file in first:
                self._put_derived(file, rows)
            if mask is not None:
                self.files.put(mask, self._digests(ref.name), replaceable(entry.mask))
                self.faults.pop(mask.row.place, None)
                self.cache.note(entry)
            written = [*derived.notes, *(file.row for file in first)]
            for name, place in derived.pictures.items():
                row, shows = rows.get(self.files.place(place)), self.deriver.picture_of(entry)
                if row is None or not self._stays(row, shows):
                    row = replace(self.files.put_picture(ref, picture_key(name), place, row), shows=shows)
                    self.copies[f"{FORMATS[name].picture_folder}/"] += 1
                    self.copied_bytes += row.size
                written.append(row)
            for file in derived.files:
                if file not in first:
                    row = rows.get(file.row.place)
                    if row is not None and self._stays(row, file.row.shows):
                        file.discard()
                        written.append(row)
                    else:
                        self._put_derived(file, rows)
                        written.append(file.row)
            places = {row.place for row in written}
            left = [
                row for row in rows.values() if row.place not in places and format_name(row.name) in derived.formats
            ]
            for row in left:
                self.files.remove_row(row)
            self.cache.note(entry, written, derived.rows)
            self.cache.note_files(ref.name, (), [row.place for row in left])
        return [self.files.path(file.row.place) for file in staged]

    def _stays(self, row: FileRow, shows: str) -> bool:
        """Return True for a file that a person changed, and that shows the labels of now, whatever the options."""
        return row.shows_labels(shows) and self.files.look(row) == "other"

    def _put_derived(self, file: StagedFile, rows: Mapping[str, FileRow]) -> None:
        row = rows.get(file.row.place)
        self.files.put(file, [] if row is None else [row.digest])

    def _digests(self, image: str) -> list[str]:
        """Return the content of an image's mask that may be destroyed, because the model made it."""
        known = self.cache.get(image)
        return [] if known is None or known.corrected or known.state != SEALED else [str(known.stamp.sha256)]

    # ---- the run ----

    @property
    def finished(self) -> bool:
        """Return True if an earlier run finished with the same settings, and this process has changed nothing."""
        if (
            self.before is None
            or self.before.ended is None
            or self.changed
            or self.failed.changed
            or not self.cache.settled
        ):
            return False
        before, spec, known = self.before.spec, self.info.spec, self.cache.files()
        facts = before.formats, before.files, before.vocabulary.specs
        same = facts == (spec.formats, spec.files, spec.vocabulary.specs)
        return same and all(self.files.look(known.get(name), name) == "ours" for name in _LISTS)

    def begin(self, info: RunInfo) -> None:
        """Record the run before its first image; with `overwrite`, remove the masks that nobody corrected.

        `info` is the run with what is known of the model and the images.

        Raises:
            OtherRunError, DeviceError: Another shard has begun the run in another way.
            OutputError: The folder cannot be written.
        """
        names = (*MODEL_FACTS, "device", "dtype_reason", "dropped", "started", "batch_size")
        background = (info.vocabulary or info.spec.vocabulary).background
        vocabulary = replace(self.info.spec.vocabulary, background=background, auto=False)
        self.change(replace(self.info, **{name: getattr(info, name) for name in names}, vocabulary=vocabulary))
        self.changed, spec = True, self.info.spec
        if self.before is None:
            if not write_new(self.path / RUN_FILE, run_json(replace(self.info, ended=None)), self.path):
                self._join(stored_run(self.path))
        elif spec.shard is None:
            if self.starting_over:
                self._start_over()
            elif added := {*spec.formats} - {*self.before.spec.formats}:
                refuse_shared(self.path, spec.files.names, added, self.cache.names())
            self.write_record(replace(self.info, ended=None, overwriting=spec.overwrite))
        self.starting_over = False

    def _join(self, first: RunInfo | None) -> None:
        """Go on in a run that another shard has just begun. Raise OtherRunError or DeviceError if it began in another way."""
        if first is None:
            return
        if (error := other_question(first, self.info)) is not None:
            raise error
        mine, theirs = ((each.device, each.dtype) for each in (self.info, first))
        if mine[1] != theirs[1] or (mine[0] != theirs[0] and self.info.spec.device == "auto"):
            here, there = (f"{device} in {dtype}" for device, dtype in (mine, theirs))
            raise DeviceError(
                self.info.device,
                f"{self.path}: this shard would run on {here}, but the first one runs on {there}",
                "Run the same command again: it then chooses what the first shard chose.",
            )

    def _start_over(self) -> None:
        """Remove the masks that nobody corrected, and the files of formats that the run does not have."""
        assert self.before is not None
        self.write_record(replace(self.before, ended=None))  # a killed command starts over again
        for entry in self.cache.entries():
            if not entry.corrected and entry.place not in self.faults:
                self.forget(entry)
        self.clear_orphans()
        for name in {*self.before.spec.formats} - {*self.info.spec.formats}:
            self.drop(name)
        self._commit()  # what is gone is forgotten before run.json says that the run began

    def forget(self, entry: Entry) -> None:
        """Remove an image, corrected or not, with its mask; `settle` clears its other files. A person's mask goes to the trash."""
        self.changed = True
        self.files.remove(entry.place, self._digests(entry.image), is_models)
        self.cache.forget(entry.image)

    def clear_orphans(self) -> None:
        """Remove the files of images that are gone; what a person changed goes to the trash."""
        orphans = self.cache.orphans()
        for image, row, is_held in orphans:
            if not is_held:
                self.files.remove_row(row)
            self.cache.note_files(image, (), [row.place])
        if orphans:
            self._commit()  # before the files of other images come to their places

    def write_file(self, path: Path, data: bytes | Iterable[bytes], name: str, shows: str) -> bool:
        """Write a file for the whole run, if it has other content. Return False if it has this content."""
        place = self.files.place(path)
        row = self.cache.files().get(place)
        file = self.files.stage(name, path, data, shows)
        same = digest_of(path) == file.row.digest
        ours = [] if row is None else row.digests
        if not same:  # a killed command leaves either content
            self.cache.note_files("", [replace(file.row, digest=" ".join([*ours, file.row.digest]), shows="")])
            self._commit()
        self.files.put(file, ours)
        self.cache.note_files("", [file.row])
        return not same

    def write_record(self, info: RunInfo | None = None) -> None:
        atomic_write(self.path / RUN_FILE, run_json(info or self.info))

    def note_removed(self, images: Iterable[str]) -> None:
        """Record the images that a command removes or gives back to the model: after a kill the same command finds them there."""
        self.info = replace(self.info, removed=tuple(images))
        self.write_record()

    def abandon(self) -> None:
        """Remove the records of a new folder in which nothing was labelled, and nothing failed; other files stay."""
        if not self.changed:
            return
        clean_up_folder(self.path)
        for row in self.cache.files().values():
            self.files.remove_row(row)
        self.cache.close()
        remove_file(self.path / RUN_FILE)
        for name in (CACHE_FILE, f"{CACHE_FILE}-journal"):
            remove_file(self.path / name)
        for top in (*image_folders(), CACHE_FOLDER):
            for folder, _, _ in os.walk(self.path / top, topdown=False):
                with suppress(OSError):  # it is not empty
                    Path(folder).rmdir()

    def finish(self, counts: Counts) -> None:
        """Write the last records. Raise OutputError if that fails."""
        self.failed.join()
        self.failed.forget_old()
        self.info = replace(self.info, ended=datetime.now(UTC), counts=counts)
        self.finish_changes()

    def finish_changes(self) -> None:
        """Write the last records of a command that changed a finished run. Raise OutputError if that fails."""
        self.totals = TotalsSum(self.context.classes)
        self.write_file(self.path / MANIFEST_FILE, self._manifest_lines(), "manifest", "")
        self.info = replace(self.info, summary=self.totals.record())
        self._write_classes()
        self.failed.write()
        self.write_record()
        self.cache.settled = True
        self._commit()

    def _manifest_lines(self) -> Iterator[bytes]:
        for entry, files in self.cache.images():
            self.totals.add(entry.mask)
            yield json_bytes(entry.record(self.context.mask_format, files)) + b"\n"

    def _write_classes(self) -> None:
        vocabulary = self.info.vocabulary or self.info.spec.vocabulary
        found = self.info.summary.get("classes", ())
        asked = {each["id"]: each["asked"] for each in found if "asked" in each} if isinstance(found, list) else {}
        content = classes_json(self.context.classes, vocabulary.background_texts, asked)
        self.write_file(self.path / CLASSES_FILE, content, "classes", "")

    def _commit(self, seconds: float = 0.0) -> None:
        """Let the files that are in place count, if that many seconds have passed since the last time."""
        if time.monotonic() - self._committed >= seconds:
            self.files.sync()
            self.cache.commit()
            self._committed = time.monotonic()

    def shown_files(self, entry: Entry) -> dict[str, Path]:
        """Return the files of an image by key, the mask first."""
        return RunImage(entry, self.cache.files(entry.image), self).files()

    def add_classes(self, names: Sequence[str]) -> None:
        """Add classes to the question that the folder answers. Raise InputError if a name is invalid."""
        info = with_classes(self.info, names)
        check_formats(info.spec.formats, info.spec.vocabulary.classes)
        self.change(info)
        self._write_classes()
        self.write_record()

    def drop(self, name: str) -> None:
        """Remove the files of a format; what a person changed goes to the trash."""
        self.changed = True
        for image in ("", *self.cache.names()):
            rows = [row for row in self.cache.files(image).values() if format_name(row.name) == name]
            for row in rows:
                self.files.remove_row(row)
            self.cache.note_files(image, (), [row.place for row in rows])
        self.cache.drop(name)

    @property
    def run_paths(self) -> list[Path]:
        """Return the existing files for the whole run, classes.json last."""
        files = [file for name in self.context.formats for file in FORMATS[name].files]
        return [path for name in (*files, CLASSES_FILE) if (path := self.path / name).exists()]


#: Seconds between two times that files are made to count. What a killed process wrote since then is read again.
_COMMITTED = 2.0

_LISTS = (CLASSES_FILE, MANIFEST_FILE)


def written_mask(data: bytes, row: FileRow) -> dict[str, Any]:
    """Return the fields of the entry of a mask with this content."""
    sealed = envelope(data)
    found = open_envelope(sealed).facts
    assert found is not None
    return {
        "mask": found,
        "sealed": sealed,
        "place": row.place,
        "stamp": Fingerprint(row.size, row.mtime_ns, row.digest),
    }


def is_models(path: Path) -> bool:
    """Return True for a mask that the model made, and nobody changed since."""
    with suppress(OSError):
        facts = read_attached(path.read_bytes())
        return facts is not None and not facts.by_person
    return False


def replaceable(new: MaskFacts) -> Judge:
    """Return a judge of masks: the model's, and a person's with the same labels, may be destroyed."""

    def judge(path: Path) -> bool:
        with suppress(OSError):
            facts = read_attached(path.read_bytes())
            return facts is not None and (not facts.by_person or facts.labels == new.labels)
        return False

    return judge


@contextmanager
def open_folder(spec: RunSpec) -> Iterator[OutputFolder]:
    """Lock the folder of a run, look at its masks, and plan the run (see `plan_run`). Nothing is written before `begin`.

    Raises:
        OtherRunError: The folder answers another question.
        OutputError: Another process uses the folder, a link leads out of it, or corrected masks would change their meaning.
        RecordError: The run.json of the folder is damaged.
        TipssegError: The run cannot be planned.
    """
    with locked_cache(spec.output, spec.shard) as cache:
        folder = _planned(spec, cache)
        try:
            if folder.refusal is not None:
                raise folder.refusal
            if folder.starting_over and folder.before is not None:
                refuse_other_ids(folder.before, folder.info, folder.cache.entries())
        except OtherRunError as error:
            if folder.before is not None:
                _add_corrections(error, folder, folder.before)
            raise
        try:
            yield folder
        except BaseException:
            if folder.is_new and not len(folder) and not len(folder.failed):
                folder.abandon()
            elif folder.failed.changed:
                with suppress(OutputError):
                    folder.failed.write()
            raise
        else:
            if folder.failed.changed:
                folder.failed.write()


def _add_corrections(error: OtherRunError, folder: OutputFolder, before: RunInfo) -> None:
    """Add to the error of another question what it means for corrected masks."""
    entries = [entry for entry in folder.cache.entries() if entry.corrected]
    error.corrected = len(entries)
    try:
        refuse_other_ids(before, folder.asked, entries)
    except OtherRunError:
        error.fits = False


@contextmanager
def peek_folder(spec: RunSpec) -> Iterator[OutputFolder]:
    """Read the folder of a run, and plan the run as `open_folder` does, to see what it would do. Its `refusal` is not raised."""
    with closing(Cache(spec.output, writes=False)) as cache:
        yield _planned(spec, cache)


def _planned(spec: RunSpec, cache: Cache) -> OutputFolder:
    """Return the folder of a run, with what it records."""
    before = stored_run(spec.output)
    info = asked = plan_run(spec, before)
    folder = OutputFolder(info if before is None else before, cache, before)
    if spec.shard is None:  # a shard looks at the masks of its images alone
        folder.look()
    if before is None:
        info = _with_dtype(info, folder)
    else:
        info = asked = with_classes_of(before, info)
        goes_on = before.overwriting and before.digest == info.digest  # a killed command
        folder.starting_over = spec.overwrite and not goes_on
        if not folder.starting_over:
            folder.refusal = other_question(before, info) if len(folder) or spec.shard is not None else None
            info = merged_info(info, before)
    folder.change(info)
    folder.asked = asked
    if spec.given is not None:
        spec.given.follow(folder.previous)
    return folder


def _with_dtype(info: RunInfo, folder: OutputFolder) -> RunInfo:
    """Return a run with the dtype of the masks in a folder that has lost its run.json."""
    entry = next((entry for entry in folder.cache.entries() if not entry.corrected), None)
    infos = (replace(info, dtype=dtype) for dtype in DTYPE_NAMES)
    if entry is None or info.dtype != "auto":
        return info
    return next((each for each in infos if each.digest == entry.mask.question), info)


@contextmanager
def change_folder(output: Path, *, max_pixels: int = MAX_PIXELS) -> Iterator[OutputFolder]:
    """Lock the folder of a finished run to change it. Raise RecordError, or OutputError if another process uses it."""
    with locked_cache(output) as cache:
        info = stored_run(output)
        if info is None:
            raise no_run_error(output)
        info = finished_run(info, max_pixels=max_pixels)
        folder = OutputFolder(info, cache, info)
        folder.look()
        yield folder


@contextmanager
def locked_cache(output: Path, shard: Shard | None = None) -> Iterator[Cache]:
    """Lock a folder, and open its cache. Remove temporary files of killed processes, and after an error this one's."""
    lock = FolderLock(output, shard)
    try:
        if lock.left_over and shard is None:  # other shards may be writing
            clean_up_folder(output)
        with closing(Cache(output, writes=True, name=cache_name(shard), lock=lock)) as cache:
            if shard is None:
                cache.absorb()
            yield cache
    except BaseException:
        if shard is None and not lock.missing:
            clean_up_folder(output)
        raise
    finally:
        lock.give_back()


def clean_up_folder(folder: Path) -> None:
    """Remove temporary files."""
    clean_up([folder, folder / CACHE_FOLDER], keep={LOCK_FILE})
    clean_up_below(folder / name for name in image_folders())
