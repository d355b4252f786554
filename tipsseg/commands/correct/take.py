"""`tipsseg correct`: import corrected labels into the output folder of a run, all or nothing.

First, read and check all corrections, and write the new masks beside the old ones under temporary names. Then put them in place,
and bring the derived files up to date. The same command resumes after an interruption.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tipsseg.address import as_address
from tipsseg.commands.correct.plan import CorrectedMask, Plan, Planner, RedrawnObject
from tipsseg.commands.correct.sources import PAGE, SourceRun, find_page, find_source_run
from tipsseg.corrections.files import Source
from tipsseg.corrections.image_names import ImageNames
from tipsseg.corrections.records import ClassNames, SourceImage
from tipsseg.engine.notes import note_settled
from tipsseg.errors import ImageError, InputError, Words
from tipsseg.formats import FORMATS, detect_format, find_reading_format, format_name, refuse_parts
from tipsseg.formats.base import Format
from tipsseg.options import default_jobs
from tipsseg.options.records import CorrectOptions, ReadingOptions
from tipsseg.run.entry import Correction, FileRow, recorded_ref
from tipsseg.run.files import digest_of
from tipsseg.run.folder import OutputFolder, change_folder
from tipsseg.run.inputs import check_image_root
from tipsseg.run.read import Run, find_only, open_run, refuse_raster
from tipsseg.run.results import TAKEN, Derived
from tipsseg.run.settle import Settled, adopt_masks, run_file_shows, settle
from tipsseg.say import Progress
from tipsseg.types import name_order, printable_path
from tipsseg.util.text import join_first, pluralize, shorten

#: The maximum number of redrawn objects to name.
_OBJECTS_NAMED = 5

_EXPORT_IS_EMPTY = "Some tools lose all objects when they export; see that the file has yours."
_NOT_REVIEWED = "The source does not record whether a person removed the objects or never opened the image."


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """The result of importing corrections.

    Attributes:
        format: The format of the corrections.
        masks: The corrected masks, in the order of the images.
        unchanged: Images whose masks already agree with the corrections.
        unmatched: Names of images in the corrections that are missing from the folder, or are different pictures there.
        uncorrected: Names of images in a source run that nobody corrected.
        classes: The names of added classes.
        redrawn: Objects left unchanged, because their outlines differ only as far as tools redraw objects.
        failed: The number of masks that a person changed while the corrections were read, and of images and files for the whole run
            that could not follow the masks.
    """

    format: str = ""
    masks: tuple[CorrectedMask, ...] = ()
    unchanged: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    uncorrected: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    redrawn: tuple[RedrawnObject, ...] = ()
    failed: int = 0

    def records(self) -> Iterator[dict[str, object]]:
        """Yield the corrected masks as JSON values: image, mask, and the number of changed pixels."""
        for mask in self.masks:
            yield {"image": mask.image, "mask": printable_path(mask.path), "changed": mask.changed}


def take_corrections(
    output: Path, source: Path, options: CorrectOptions, reading: ReadingOptions, progress: Progress
) -> Corrections:
    """Import corrected labels: all of them, or none. See `verbs.correct.correct_folder`."""
    moved = None if options.images is None else as_address(options.images)
    check_image_root(moved)
    with ExitStack() as stack:
        folder = None
        if options.dry_run:
            run = stack.enter_context(open_run(output, max_pixels=reading.max_pixels))
        else:
            run = folder = stack.enter_context(change_folder(output, max_pixels=reading.max_pixels))
        refuse_raster(run.info)
        files = stack.enter_context(Source(source))
        source_run = find_source_run(files, run.output, stack, everything=options.everything)
        reader = _reader(options, source_run, files, run)
        own = None if folder is None else _OwnFiles.below(folder, Path(os.path.realpath(source)), reader.name)
        names = ClassNames(run.classes, add=options.add_classes)
        images = reader.read(files, names)
        if own is not None:
            images = own.select(images, _Matcher(run, None))
        if source_run is not None and not options.everything:
            images = source_run.select_corrected(images)
        matched, unmatched = _match(images, run, source_run, source, progress)
        uncorrected = () if source_run is None else tuple(source_run.uncorrected)

        count = len(matched)
        progress.begin(
            "importing", count, images=pluralize(count, "image"), source=source, name=reader.name, output=run.output
        )
        planner = Planner(run, names, printable_path(source.absolute()), reader.name, options)
        plans = planner.plan_all(matched, progress)
        progress.end()
        changed = _keep_unseen(source, plans, options.emptied, progress, partly=bool(uncorrected))
        unchanged = tuple(image for image, plan in plans.items() if plan.mask is None)

        late, settled = dict[str, ImageError](), Settled()
        if folder is not None:
            if names.added:
                folder.add_classes(names.added)
            late = {image: error for image, plan in changed.items() if (error := _put(folder, plan))}
            for image in unchanged:
                try:
                    _confirm(folder, image, plans[image], planner)
                except ImageError as error:
                    late[image] = error
            if own is not None:
                own.take_in({*changed, *unchanged, *([""] if len(changed) + len(unchanged) == count else [])})
            settled = settle(folder, reading.jobs, images=moved)
            folder.finish_changes()
        errors = [*late.values(), *settled.failed, *(() if source_run is None else source_run.lacking)]
        result = Corrections(
            format=reader.name,
            masks=tuple(plan.mask for image, plan in changed.items() if plan.mask and image not in late),
            unchanged=unchanged,
            unmatched=unmatched,
            uncorrected=uncorrected,
            classes=names.added,
            redrawn=tuple(redrawn for plan in plans.values() for redrawn in plan.redrawn),
            failed=len(errors),
        )
        accepted = sum(bool(options.accept or plans[image].source.accepted) for image in unchanged)
        _print_result(result, accepted, source, progress, options)
        _print_rest(folder, own, settled, errors, progress)
        return result


def undo(output: Path, images: Sequence[str | Path], progress: Progress, *, dry_run: bool) -> Corrections:
    """Give corrected images back to the model. Their masks go to the trash."""
    with change_folder(output) as folder:
        names, unknown = find_only(folder.cache.entries(), map(Path, images), None)
        repeated = folder.info.removed == tuple(map(str, images))  # the same command was killed
        found = [folder.image(name) for name in sorted(names)]
        corrected = [each for each in found if each.corrected or each.entry.place in folder.faults]
        others = [*map(str, unknown), *sorted(names - {each.entry.image for each in corrected})]
        if others and not repeated:
            raise InputError(
                f"{output}: no correction of {join_first(others, 3)}", "Name corrected images of this folder."
            )
        if not dry_run:
            folder.note_removed(map(str, images))
        again = list[str]()
        for image in corrected:
            progress.results([image.mask])
            if not dry_run and not folder.restore(image.entry):
                again.append(image.entry.image)
                folder.forget(image.entry)
        if not dry_run:
            settled = settle(folder, default_jobs())
            folder.finish_changes()
            note_settled(folder, settled, progress)
        progress.note(
            "undone", undone="Would undo" if dry_run else "Undid", corrections=pluralize(len(corrected), "correction")
        )
        if again:
            progress.note("again", images=pluralize(len(again), "image"), names=join_first(again, 5))
    return Corrections()


def remove(output: Path, images: Sequence[str | Path], progress: Progress, *, dry_run: bool) -> Corrections:
    """Remove images from an output folder. Corrected masks go to the trash."""
    with change_folder(output) as folder:
        names, unknown = find_only(folder.cache.entries(), map(Path, images), None)
        if unknown := [path for path in unknown if str(path) not in folder.info.removed]:
            raise InputError(
                f"{output}: no image {join_first([str(path) for path in unknown], 3)}", "See manifest.jsonl."
            )
        if not dry_run:
            folder.note_removed(map(str, images))
            for name in names:
                folder.forget(folder.image(name).entry)
            settled = settle(folder, default_jobs())
            folder.finish_changes()
            note_settled(folder, settled, progress)
        would = "Would remove" if dry_run else "Removed"
        progress.note(
            "removed", would=would, images=pluralize(len(names), "image"), names=join_first(sorted(names), 20)
        )
    return Corrections()


# ---- read and check ----


def _reader(options: CorrectOptions, source_run: SourceRun | None, files: Source, run: Run) -> Format:
    objects = FORMATS["instances"]
    own = Path(os.path.realpath(run.output / str(objects.folder)))
    if options.source_format in (None, objects.name) and Path(os.path.realpath(files.path)).is_relative_to(own):
        return objects
    refuse_parts(files.path)
    if options.source_format in (None, PAGE) and (reader := find_page(files, run)):
        return reader
    if options.source_format == PAGE:
        raise InputError(
            f"{files.path}: not a corrections.json of the report page", "Pass the file that the page saved."
        )
    if options.source_format is not None:
        return find_reading_format(options.source_format)
    return (source_run and source_run.masks_of(files)) or detect_format(files)


class _Matcher:
    """Find the images of a run in a source: by their names, by former ones, and in another run by the bytes of the picture."""

    def __init__(self, run: Run, source_run: SourceRun | None) -> None:
        self._run, self._source_run = run, source_run
        self._names = ImageNames(run.cache.names())
        self._former = run.former
        self._old_names = ImageNames(self._former)

    def find(self, source_image: SourceImage) -> str | None:
        """Return the image of the run; None if it has none. Raise InputError if several match."""
        name = source_image.name
        image = self._names.find(name)
        if image is None and source_image.other_name is not None and (other_name := source_image.other_name()):
            image = self._names.find(other_name)
        if image is None and (old := self._old_names.find(name)) is not None:
            image = self._former[old]
        if image is None and self._source_run is not None:
            image = self._source_run.same_picture(source_image, self._run)
        return image


def _match(
    images: Iterable[SourceImage], run: Run, source_run: SourceRun | None, source: Path, progress: Progress
) -> tuple[dict[str, SourceImage], tuple[str, ...]]:
    """Return the corrections by image of the run, in image order, and the names of those that match none. Note ignored ones.

    Raise InputError if no image matches, if a match is ambiguous, or if an image has no mask.
    """
    matcher, found = _Matcher(run, source_run), dict[str, SourceImage]()
    missing: dict[str, None] = {}
    other_pictures: dict[str, None] = {}
    for source_image in images:
        image = matcher.find(source_image)
        if image is None:
            missing[source_image.name] = None
        elif source_run is not None and source_run.has_other_picture(source_image, run.image(image)):
            other_pictures[source_image.name] = None
        elif image not in found:
            found[image] = source_image
        elif not source_image.by_list:
            other = found[image]
            raise InputError(
                f"{source}: two corrections of {image}: {shorten(other.name)} ({other.where}) "
                f"and {shorten(source_image.name)} ({source_image.where})",
                "Remove one of them.",
            )
    uncorrected = [] if source_run is None else source_run.uncorrected
    if not found and not uncorrected:
        if other_pictures:
            raise InputError(
                f"{source}: the run has different pictures with these names: {_join(other_pictures)}",
                "Correct the labels of the same image files.",
            )
        raise InputError(
            f"{source}: " + (f"the run has no image {_join(missing)}" if missing else "no corrected images"),
            "In Label Studio, submit the annotations first: predictions are not exported."
            if not missing
            else "An image matches if its path ends with the name in the corrections, or the name ends with its path; suffixes may "
            "differ.",
        )
    for ignored, reason in (
        (missing, f" not in the run: {_join(missing)}"),
        (other_pictures, f", because the run has different pictures with these names: {_join(other_pictures)}"),
        (uncorrected, Words(" that nobody corrected; {everything} imports the model's labels too")),
    ):
        if ignored:
            progress.note("not_matched", images=pluralize(len(ignored), "image"), source=source, reason=reason)
    return {image: found[image] for image in sorted(found, key=name_order)}, (*missing, *other_pictures)


def _keep_unseen(
    source: Path, plans: Mapping[str, Plan], empty: bool | None, progress: Progress, *, partly: bool
) -> dict[str, Plan]:
    """Return the plans that change a mask, but none that would empty it without permission. Note emptied images.

    An image without objects counts as reviewed if its source says so, and another image of it has objects: some exports lose the
    objects of all images; `partly` if it has others. `empty` is the user's choice for the other ones. Raise InputError if it is
    needed, but None.
    """
    changed = {image: plan for image, plan in plans.items() if plan.mask is not None}
    emptied = [image for image, plan in changed.items() if plan.mask is not None and plan.mask.emptied]
    all_empty = not partly and all(plan.empty and not plan.source.made_on for plan in plans.values())
    unsure = [image for image in emptied if all_empty or not plans[image].source.submitted]
    number, names = pluralize(len(unsure), "image"), join_first(unsure, 20)
    if unsure and empty is None:
        raise InputError(
            f"{source}: {'no image has objects' if all_empty else f'{number} without objects'}: {names}",
            (_EXPORT_IS_EMPTY if all_empty else _NOT_REVIEWED)
            + Words(" Empty the masks with {emptied}, or leave these images as they are with {emptied:no}."),
        )
    if unsure and not empty:
        progress.note("left_without_objects", number=number, source=source, names=names)
        for image in unsure:
            changed.pop(image).discard()
        emptied = [image for image in emptied if image in changed]
    if emptied:
        progress.note("emptied", images=pluralize(len(emptied), "image"), names=join_first(emptied, 20))
    return changed


# ---- write ----


def _put(folder: OutputFolder, plan: Plan) -> ImageError | None:
    """Put a new mask in place. Return an error if a person changed the mask meanwhile: it is kept."""
    assert plan.mask is not None
    assert plan.entry is not None
    assert plan.file is not None
    if digest_of(plan.mask.path) != plan.before:
        plan.discard()
        return ImageError(plan.mask.path, "changed while the corrections were read, so it was kept", _EDITED_MEANWHILE)
    rows = folder.cache.files(plan.mask.image)
    try:
        folder.put(recorded_ref(plan.entry), plan.entry, plan.file, Derived(), rows)
    except ImageError as error:
        return error
    return None


#: The hint for a mask that a person saved while `tipsseg correct` ran.
_EDITED_MEANWHILE = Words("It counts as corrected by you; the same command with {replace_edited} replaces it.")


def _confirm(folder: OutputFolder, image: str, plan: Plan, planner: Planner) -> None:
    """Write into a mask what a source says of an image that it shows unchanged.

    A person accepts it, also for another picture of its size, or does not any more: then it is the model's again, unless that
    person changed it. The mask names the newest file of a page that has it. Raise ImageError if the mask changed meanwhile.
    """
    entry, accepted, saved = folder.cache.get(image), plan.source.accepted, plan.source.saved
    if entry is None:
        return
    before = entry.correction or Correction(source=planner.source, format=planner.format)
    picture = folder.current_picture(entry) if planner.options.accept else entry.mask.picture
    is_other = picture != entry.mask.picture
    if (
        planner.options.accept and not before.content
    ):  # what a person drew, as a killed command may have, counts as drawn
        accepted = True
    if accepted is None and not (saved and entry.corrected) and not is_other:
        return
    if accepted is False and not entry.corrected:
        return
    if accepted is False and before.accepted and not before.content and folder.restore(entry):
        return
    now = replace(before, accepted=before.accepted if accepted is None else accepted, saved=saved or before.saved)
    if now == entry.correction and not is_other:
        return
    bulk = {**entry.bulk.unpacked(), "origin": now.text()}
    if not entry.corrected:
        bulk["model"] = folder.read_mask(entry)
    facts = replace(
        entry.mask, by="person", source=now.format, accepted=now.accepted, saved=planner.saved, picture=picture
    )
    folder.rewrite(entry, facts, bulk)


class _OwnFiles:
    """The files of a folder in the format that its corrections are read from. Those that a person changed are corrections.

    A file counts for an image if it shows the labels of now. Of others, the labels stay.

    Attributes:
        older: Files of images that a person changed, and that show older labels.
        changed_since: Images of a file for the whole run whose labels changed since it was written.
    """

    def __init__(self, folder: OutputFolder, rows: Sequence[tuple[str, FileRow]]) -> None:
        self.older, self.changed_since = dict[Path, None](), list[str]()
        self._folder = folder
        self._by_path = {Path(os.path.realpath(folder.files.path(row.place))): (image, row) for image, row in rows}
        self._changed = [(image, row) for image, row in rows if folder.files.look(row) == "other"]

    @classmethod
    def below(cls, folder: OutputFolder, source: Path, read_as: str) -> _OwnFiles | None:
        """Return the files below `source` that a reader reads; None if it is outside of the folder, or its masks.

        Masks that a person changed in place are adopted first, so that files which show older masks do not count.
        """
        kind, mask = read_as.partition("-")[0], folder.context.mask_format
        names = {name for name in FORMATS if name.partition("-")[0] == kind and name != mask}
        if not source.is_relative_to(os.path.realpath(folder.path)) or not names:
            return None
        adopt_masks(folder)
        rows = [(image, row) for image in ("", *folder.cache.names()) for row in folder.cache.files(image).values()]
        for old, row, _ in folder.cache.orphans():  # edited before its picture was renamed
            if (image := folder.now(old)) is not None:
                folder.cache.note_files(old, (), [row.place])
                folder.cache.note_files(image, [row])
                rows.append((image, row))
        own = [(image, row) for image, row in rows if row.is_file and format_name(row.name) in names]
        places = {row.place: Path(os.path.realpath(folder.files.path(row.place))) for _, row in own}
        return cls(folder, [(image, row) for image, row in own if places[row.place].is_relative_to(source)])

    def select(self, images: Iterable[SourceImage], matcher: _Matcher) -> Iterator[SourceImage]:
        """Yield the images in files that show the current labels, and in files that the folder does not know."""
        changed = {row.place for _, row in self._changed}
        elsewhere = {image for image, _ in self._changed if image}
        for source_image in images:
            owner, row = self._by_path.get(Path(os.path.realpath(source_image.where)), ("", None))
            image = owner or matcher.find(source_image)
            if row is not None and row.place not in changed and image in elsewhere:
                continue  # a person changed a file of this image under its former name
            if row is None or image is None or self._is_fresh(image, row, whole=not owner):
                yield source_image
            elif not owner:
                self.changed_since.append(image)
            elif row.place in changed:
                self.older[self._folder.files.path(row.place)] = None

    def note_older(self, progress: Progress) -> None:
        """Note the files that show older labels."""
        if self.older:
            names = join_first([str(path) for path in self.older], 3)
            progress.note("outdated_files", files=pluralize(len(self.older), "file"), names=names)
        if self.changed_since:
            names = join_first(self.changed_since, 5)
            progress.note("newer_masks", masks=pluralize(len(self.changed_since), "mask"), names=names)

    def _is_fresh(self, image: str, row: FileRow, *, whole: bool) -> bool:
        """Return True if a file shows the labels of an image as they are now."""
        entry, name = self._folder.cache.get(image), format_name(row.name)
        if entry is None:
            return True
        if whole:  # which images changed since it was written is unknown, but corrections are never replaced by it
            shown, shows = self._folder.cache.files(image).get(row.place), self._folder.deriver.shows(name, entry)
            now = shown is not None and shown.shows == shows and row.shows == run_file_shows(self._folder, name)[0]
            return now or not entry.corrected
        return row.shows.removesuffix(TAKEN) == self._folder.deriver.shows(name, entry)

    def take_in(self, images: Container[str]) -> None:
        """Record the changed files of images as taken in, as they were read: they stay, and show the labels of now."""
        for image, row in self._changed:
            path = self._folder.files.path(row.place)
            entry = self._folder.cache.get(image) if image else None
            if entry is not None and image in images and path not in self.older:
                shows = self._folder.deriver.shows(format_name(row.name), entry)
                self._folder.cache.note_files(image, [replace(row, shows=shows + TAKEN)])


# ---- report ----


def _print_result(
    result: Corrections, accepted: int, source: Path, progress: Progress, options: CorrectOptions
) -> None:
    progress.results(mask.path for mask in result.masks)
    if result.classes:
        progress.note("new_classes", classes=join_first(result.classes, 10))
    if result.redrawn:
        objects = join_first([str(redrawn) for redrawn in result.redrawn], _OBJECTS_NAMED)
        progress.note("redrawn", number=pluralize(len(result.redrawn), "object"), source=source, objects=objects)
        if not result.masks:
            progress.note("exact_exports")
    would = "would be " if options.dry_run else ""
    more = f", {accepted} of them accepted" if accepted else ""
    progress.note(
        "corrected", masks=pluralize(len(result.masks), "mask"), would=would, unchanged=len(result.unchanged), more=more
    )


def _print_rest(
    folder: OutputFolder | None,
    own: _OwnFiles | None,
    settled: Settled,
    errors: Iterable[ImageError],
    progress: Progress,
) -> None:
    """Print what failed, and what became of the other files of the folder; None for a dry run."""
    for error in errors:
        progress.error(error)
    if own is not None:
        own.note_older(progress)
    if folder is not None:
        note_settled(folder, settled, progress)


def _join(names: Iterable[str]) -> str:
    return join_first([shorten(name) for name in names], 5)
