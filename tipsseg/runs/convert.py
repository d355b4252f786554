"""`tipsseg convert`: the labels in an output folder in more formats, from the files that are in it.

convert_image   one image: read back, then written as `tipsseg label` writes it
stored_labels   label ids and confidences, read back
stored_rows  lists of objects, read back
stored_scores   objects with their scores
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError, UsageError
from tipsseg.formats import FORMATS, RunContext, check_formats, create, has_image_files, rows_file, run_files
from tipsseg.regions.quality import PolygonQuality
from tipsseg.runs.convert_image import Conversion, Converted, Item
from tipsseg.runs.notes import note_parts, note_polygon_quality
from tipsseg.runs.progress import Progress
from tipsseg.store.corrections import OF_THE_MODEL
from tipsseg.store.file_names import OutputNames, name_key
from tipsseg.store.folder import clean_up_run
from tipsseg.store.journal import Journal, journals_in, write_run_file
from tipsseg.store.lock import FolderLock
from tipsseg.store.manifest import Manifest, ManifestEntry
from tipsseg.store.reader import (
    FinishedRun,
    broken_conversion,
    conversion_begun,
    find_runs,
    finished_context,
    read_entries,
)
from tipsseg.store.results import Failed, Unchanged
from tipsseg.store.resume import image_paths, in_place, is_recorded, restore_links
from tipsseg.store.run_record import write_run
from tipsseg.store.stored_labels import CONFIDENCES, LABELS
from tipsseg.store.stored_rows import LISTS, RowStream
from tipsseg.store.summary import total
from tipsseg.types import ImageRef
from tipsseg.util.files import is_file, is_folder
from tipsseg.util.json_values import actual_name, actual_path
from tipsseg.util.printable import counted, shell_word
from tipsseg.util.threads import in_order

_LABELS = "labels"


def convert_folder(
    output: Path,
    formats: Sequence[str],
    images: Path | None,
    jobs: int,
    progress: Progress,
    val_fraction: float | None = None,
    only: Collection[str] | None = None,
) -> int:
    """Write the labels in an output folder in more formats, as its run would have; returns how many images failed.

    images        the folder that the images' names begin at, in place of the one that the run noted
    jobs          threads
    val_fraction  replaces that of the run, see FileOptions
    only          the names of the images; None: all

    What is there stays, so that a conversion that was broken off goes on. A mask that a person corrected is taken as the labels of
    its image, and then all formats of the image follow it, those of the run too; other files that were changed by hand stay. Memory
    grows by a name and an offset an image. Raises UsageError for what cannot be meant, InputError for a folder that does not have
    what the formats need, and OutputError where it cannot be written.
    """
    if images is not None and not is_folder(images):
        raise UsageError(f"--images {images}: no such folder", "Give the folder that the images' names begin at.")
    if not is_folder(output):
        raise InputError(f"{output}: no such folder", "Give an output folder of tipsseg label.")
    claim = FolderLock(output)
    try:
        if claim.left_over:
            clean_up_run(output, output)
        part = _with_fraction(_whole_run(output), formats, val_fraction)
        context = finished_context(part)
        check_formats(formats, context.classes)
        _refuse_others_begun(part, formats)
        _refuse_unknown(part, formats)
        _refuse_shared(part, context, formats)
        with ExitStack() as stack:
            root = _image_root(part, formats, images)
            return _Run(part, context, formats, root, only, stack).go(jobs, progress)
    finally:
        claim.give_back()


class _Run:
    """One conversion; `stack` closes its files."""

    def __init__(
        self,
        part: FinishedRun,
        context: RunContext,
        formats: Sequence[str],
        root: Path | None,
        only: Collection[str] | None,
        stack: ExitStack,
    ) -> None:
        self._part = part
        self._context = context
        self._formats = formats
        self._root = root
        self._moved = root is not None and str(root.absolute()) != part.info.image_root
        self._only = only
        self._done = self._unchanged = self._failed = self._rough = self._corrected = 0
        self._kept: set[Path] = set()
        self._left: dict[str, None] = {}
        self._fidelity = PolygonQuality()
        self._manifest = stack.enter_context(closing(Manifest(context.state)))
        context.ownership.load(part.info.files, self._is_recorded)
        for path in _run_paths(formats, context):
            context.ownership.refuse_changed(path)
        # The other formats of the run follow masks that a person corrected, but for files that a person changed too.
        self._followers = tuple(
            name
            for name in part.formats
            if name not in formats and all(map(context.ownership.is_unchanged, _run_paths((name,), context)))
        )
        self._journals: dict[str, Journal] = {}
        for name in (*formats, *self._followers):
            file = rows_file(name, context)
            if file is not None:
                journal = Journal(name, file, context.state, self._manifest.holding(name))
                self._journals[name] = stack.enter_context(closing(journal))
        self._streams = _streams(context, self._manifest)

    def go(self, jobs: int, progress: Progress) -> int:
        """Returns how many images failed."""
        began = time.monotonic()
        number = len(self._manifest) if self._only is None else len(self._only)
        progress.begin(f"{counted(number, 'image')} of {self._part.output} into {', '.join(self._formats)}.", number)
        note_parts(self._formats, self._context.files, progress)
        # Whoever finds the folder half done knows from this how to go on.
        write_run(self._context.ownership, replace(self._part.info, converting=tuple(self._formats)))
        writers = {name: create(name, self._context) for name in (*self._formats, *self._followers)}
        conversion = Conversion(self._context, tuple(self._formats), writers)
        try:
            with closing(in_order(jobs, conversion.convert, self._items())) as outcomes:
                for outcome in outcomes:
                    self._take(outcome, progress)
        except KeyboardInterrupt as interrupt:
            done = counted(self._done + self._unchanged, "image")
            interrupt.add_note(f"{done} done; the same command goes on from there")
            raise
        self._finish()
        progress.end()
        progress.results(file.path for name in self._formats for file in run_files(name, self._context))
        self._note_end(progress, time.monotonic() - began)
        return self._failed

    def _items(self) -> Iterator[Item]:
        for entry in self._manifest.entries():
            if self._only is not None and entry.image not in self._only:
                continue
            ref = _image_ref(entry, self._context.output, self._root)
            missing = [name for name in self._formats if self._is_missing(name, entry, ref)]
            listing = [name for name in self._streams if name in entry.formats][:1]
            yield Item(ref, entry, tuple(missing), {name: self._streams[name].of(entry.image) for name in listing})

    def _is_missing(self, name: str, entry: ManifestEntry, ref: ImageRef) -> bool:
        # Records that say where the image is say it anew where it is said.
        if self._moved and FORMATS[name].image and name in self._journals and FORMATS[name].links is None:
            return True
        return not in_place(name, entry, ref, self._context, self._journals.get(name))

    def _take(self, outcome: Converted | Unchanged | Failed, progress: Progress) -> None:
        match outcome:
            case Failed(_, error):
                self._failed += 1
                progress.error(error)
                progress.advance()
                return
            case Unchanged():
                self._unchanged += 1
            case Converted():
                self._done += 1
                self._rough += outcome.rough
                self._corrected += outcome.corrected
                self._kept.update(outcome.kept)
                self._left |= dict.fromkeys(outcome.left)
                for name in self._journals.keys() & set(outcome.left):
                    self._journals[name].begin()  # so that its file is written without the image
                self._fidelity += outcome.fidelity
                for name, records in outcome.rows.items():
                    self._journals[name].add(outcome.entry.image, records)
                self._manifest.add(outcome.entry)
        if is_file(outcome.ref.path):
            restore_links(self._context, outcome.ref, self._formats)
        progress.results(image_paths(self._context, outcome.ref, self._formats).values())
        progress.advance()

    def _finish(self) -> None:
        # First, so that no file lacks an image that the manifest has, should the conversion be killed now.
        self._manifest.tidy()
        for name in (*self._formats, *self._followers):
            for file in run_files(name, self._context):
                write_run_file(file, self._journals.get(name), self._manifest.holding(name), anew=False)
        info = self._part.info
        formats = tuple(dict.fromkeys((*info.spec.formats, *self._formats)))
        if self._corrected:
            held = total((entry.summary for entry in self._manifest.entries()), self._context.classes)
            info = replace(info, summary=held.record())
        spec = replace(info.spec, formats=formats)
        write_run(self._context.ownership, replace(info, spec=spec, converting=()))
        self._context.ownership.end(self._is_recorded)

    def _is_recorded(self, image: str, digest: str) -> bool:
        return is_recorded(self._manifest.get(image), digest)

    def _note_end(self, progress: Progress, seconds: float) -> None:
        for stream in self._streams.values():
            if stream.fault:
                progress.note(f"{stream.file.path}: {stream.fault}; done without it.")
        if self._corrected:
            progress.note(
                f"{counted(self._corrected, 'mask')} changed by hand: all formats that "
                f"{'its image is' if self._corrected == 1 else 'their images are'} in have the corrected labels, but for those of "
                f"the model ({', '.join(OF_THE_MODEL)}) and files that were changed by hand."
            )
        if self._left:
            progress.note(
                f"Corrected images that are gone or were changed are not in {', '.join(self._left)} any more: "
                "those formats need the image. --images says where images are now."
            )
        if self._kept:
            first = min(self._kept)
            more = f" and {len(self._kept) - 1} more" if len(self._kept) > 1 else ""
            progress.note(f"{first}{more} changed by hand, and kept.")
        if self._rough:
            progress.note(
                f"The score of {counted(self._rough, 'object')} is the mean confidence of its class in the image: "
                f"{self._part.output} holds nothing closer."
            )
        note_polygon_quality(progress, self._fidelity)
        parts = [f"{counted(self._done, 'image')} converted"]
        parts += [f"{self._unchanged} unchanged"] if self._unchanged else []
        parts += [f"{self._failed} failed"] if self._failed else []
        progress.note(f"{', '.join(parts)} in {seconds:.1f} s, into {self._part.output}")


def _run_paths(formats: Sequence[str], context: RunContext) -> list[Path]:
    """The files that these formats have for the whole run."""
    return [file.path for name in formats for file in run_files(name, context)]


def _streams(context: RunContext, manifest: Manifest) -> dict[str, RowStream]:
    """The lists of objects that are there, the best first.

    Of one with a journal the file may lack images, where a conversion into it was broken off; those are the last choice.
    """
    begun = journals_in(context.state)
    files = {name: rows_file(name, context) for name in sorted(LISTS, key=lambda name: name in begun)}
    return {
        name: RowStream(file, manifest.holding(name))
        for name, file in files.items()
        if file is not None and (file.path.exists() or name not in begun)
    }


def _whole_run(output: Path) -> FinishedRun:
    parts = find_runs(output, output)
    if parts[0].shard is not None:
        raise InputError(
            f"{output}: it holds shards",
            f"Join them first: tipsseg merge {shell_word(str(output))} -o {shell_word(str(output))}",
        )
    return parts[0]


def _with_fraction(part: FinishedRun, formats: Sequence[str], val_fraction: float | None) -> FinishedRun:
    """The part with another `val_fraction` in its options, where there is one. Raises UsageError and InputError."""
    if val_fraction is None:
        return part
    if "yolo" not in formats:
        raise UsageError("--val-fraction is for the format yolo", "Leave it out, or name yolo among the formats.")
    spec = part.info.spec
    files = replace(spec.files, val_fraction=val_fraction)
    return replace(part, info=replace(part.info, spec=replace(spec, files=files)))


def _refuse_others_begun(part: FinishedRun, formats: Sequence[str]) -> None:
    """Raise InputError where a conversion into other formats was broken off: the manifest has them, and not all files do."""
    begun = conversion_begun(part.info)
    if not set(begun) <= set(formats):
        raise broken_conversion(part.output, begun)


def _refuse_unknown(part: FinishedRun, formats: Sequence[str]) -> None:
    """Raise InputError where the files of some image do not have what the formats need."""
    needs = [(_LABELS, tuple(LABELS))]
    if any(FORMATS[name].top for name in formats):
        needs.append(("scores of patches", ("npz",)))
    if any(FORMATS[name].confidence for name in formats):
        needs.append(("confidences", CONFIDENCES))
    lacking: dict[str, list[str]] = {}
    for entry in read_entries(part):
        for what, sources in needs:
            # Lists of objects have no ignored pixels.
            useless = LISTS.keys() if what == _LABELS and entry.summary["ignored"] else ()
            if not set(sources).difference(useless) & set(entry.formats):
                lacking.setdefault(what, []).append(entry.image)
    for what, sources in needs:
        if what in lacking:
            first, *more = lacking[what]
            others = f" and {len(more)} more" if more else ""
            raise InputError(
                f"{part.output}: it does not hold the {what} of {first}{others}",
                f"Run the command that made it again, with one of these formats beside its own: {', '.join(sources)}.",
            )


def _refuse_shared(part: FinishedRun, context: RunContext, formats: Sequence[str]) -> None:
    """Raise InputError where two images would have one file."""
    if not has_image_files(formats):
        return
    names = OutputNames(name_key(context.output), context.files.names, formats)
    for image in dict.fromkeys(entry.image for entry in read_entries(part)):
        if shared := names.take(ImageRef(Path(image), PurePosixPath(image))):
            raise InputError(f"{part.output}: {shared}", names.hint)


def _image_root(part: FinishedRun, formats: Sequence[str], images: Path | None) -> Path | None:
    """The folder that the names of the images begin at. Raises InputError where it is needed and not there."""
    noted = part.info.image_root
    root = images or (None if noted is None else actual_path(Path(), noted))
    needing = [name for name in formats if FORMATS[name].image]
    if needing and (root is None or not is_folder(root)):
        where = "the images are from several folders" if root is None else f"{root}: no such folder"
        raise InputError(
            f"{where}, and {', '.join(needing)} cannot do without the images",
            "Give the folder that the images' names begin at with --images.",
        )
    return root


def _image_ref(entry: ManifestEntry, output: Path, root: Path | None) -> ImageRef:
    """The image of an entry, whose name may spell out bytes, see `records.printable_path`."""
    name = entry.image
    if actual_name(name) != name and not _as_written(name, entry, output, root):
        name = actual_name(name)
    return ImageRef((root or Path()) / name, PurePosixPath(name))


def _as_written(name: str, entry: ManifestEntry, output: Path, root: Path | None) -> bool:
    places = [output / file for file in entry.files.values()]
    places += [] if root is None else [root / name]
    return any(os.path.lexists(place) for place in places)
