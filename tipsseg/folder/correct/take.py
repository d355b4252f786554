"""`tipsseg correct`: import corrected labels into the output folder of a run, all or nothing.

First, read and check all corrections, and write the new masks beside the old ones under temporary names. Then put them in place,
and bring the derived files up to date. The same command resumes after an interruption.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path

from tipsseg.address import as_address
from tipsseg.errors import ImageError, InputError, Words
from tipsseg.folder.correct.plan import CorrectedMask, Plan, Planner, RedrawnObject
from tipsseg.folder.correct.sources import COPY, SourceRun, find_source_run
from tipsseg.folder.entry import Correction, recorded_ref
from tipsseg.folder.files import digest_of
from tipsseg.folder.find import check_image_root
from tipsseg.folder.folder import OutputFolder, change_folder
from tipsseg.folder.notes import note_settled
from tipsseg.folder.read import Run, find_only, open_run, refuse_blocks
from tipsseg.folder.results import Derived
from tipsseg.folder.settle import Settled, adopt_masks, settle
from tipsseg.formats import FORMATS, detect_format, detect_reader, find_reading_format, refuse_parts
from tipsseg.formats.base import Format
from tipsseg.formats.mask import BASE_LENGTH
from tipsseg.formats.records import ClassNames, SourceImage, browser_of, index_images, is_older
from tipsseg.formats.source import Source
from tipsseg.masks.names import SourceNames
from tipsseg.options import default_jobs
from tipsseg.options.records import CorrectOptions, ReadingOptions
from tipsseg.say import Progress
from tipsseg.types import name_order, printable_path
from tipsseg.util.text import join_first, pluralize, shorten

#: The maximum number of redrawn objects to name.
_OBJECTS_NAMED = 5


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
        accepted: The number of unchanged images that a person accepts.
        repeated: The number of unchanged images whose corrections were imported before.
        left_out: Images that keep their labels, because these changed since the source was written.
        failed: The number of images that are left out, and of images and files for the whole run that could not follow the masks.
    """

    format: str = ""
    masks: tuple[CorrectedMask, ...] = ()
    unchanged: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    uncorrected: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    redrawn: tuple[RedrawnObject, ...] = ()
    left_out: tuple[str, ...] = ()
    accepted: int = 0
    repeated: int = 0
    failed: int = 0

    def then(self, later: Corrections) -> Corrections:
        """Return the result of both imports, one after the other."""
        both = {each.name: getattr(self, each.name) + getattr(later, each.name) for each in fields(self)}
        return Corrections(**{**both, "format": later.format})

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
        open_output = open_run if options.dry_run else change_folder
        run = stack.enter_context(open_output(output, max_pixels=reading.max_pixels))
        folder = run if isinstance(run, OutputFolder) else None
        refuse_blocks(run.info)
        source, options = _whole_format(source, run, options)
        files = stack.enter_context(Source(source))
        source_run = find_source_run(files, run.output, stack)
        if folder is not None:
            adopt_masks(folder)
        result = Corrections()
        settled, errors = Settled(), list[ImageError]()
        for reader in _readers(options, source_run, files, run):
            found, late = _take(run, reader, files, source_run, options, progress)
            result, errors = result.then(found), errors + late
        if folder is not None:
            settled = settle(folder, reading.jobs, images=moved)
            folder.finish_changes()
        errors += [*settled.failed, *(() if source_run is None else source_run.lacking)]
        result = replace(result, failed=len(errors))
        _print_result(result, source, progress, options)
        for error in errors:
            progress.error(error)
        if folder is not None:
            note_settled(folder, settled, progress)
        return result


def _take(
    run: Run,
    reader: Format,
    files: Source,
    source_run: SourceRun | None,
    options: CorrectOptions,
    progress: Progress,
) -> tuple[Corrections, list[ImageError]]:
    """Import what a reader finds. Return the result, and the errors of images that are left out."""
    source, names = files.path, ClassNames(run.classes, add=options.add_classes)
    images: Iterable[SourceImage] = reader.read(files, names)
    if source_run is not None:
        images = source_run.select_corrected(images)
    matched, unmatched = _match(_mark_own(images, run, source), run, source_run, source, progress)
    count = len(matched)
    progress.begin(
        "importing", count, images=pluralize(count, "image"), source=source, name=reader.name, output=run.output
    )
    planner = Planner(run, names, printable_path(source.absolute()), reader.name, options)
    plans = planner.plan_all(matched, progress)
    progress.end()
    uncorrected = () if source_run is None else tuple(source_run.uncorrected)
    partly = bool(uncorrected) or reader.only_changes or _is_below(source, run.output)
    changed = _keep_unseen(source, plans, progress, accept=options.accept, partly=partly)
    late = {image: plan.left_out for image, plan in plans.items() if plan.left_out is not None}
    if reader.only_changes:
        what = "no image of the folder has the picture that the page showed"
        late |= {name: ImageError(source, f"{name}: {what}", "Write the page again.") for name in unmatched}
    unchanged = tuple(image for image, plan in plans.items() if plan.mask is None and plan.left_out is None)
    if isinstance(run, OutputFolder):
        if names.added:
            run.add_classes(names.added)
        late |= {image: error for image, plan in changed.items() if (error := _put(run, plan))}
        for image in unchanged:
            try:
                _confirm(run, image, plans[image], planner)
            except ImageError as error:
                late[image] = error
    result = Corrections(
        format=reader.name,
        masks=tuple(plan.mask for image, plan in changed.items() if plan.mask and image not in late),
        unchanged=unchanged,
        left_out=tuple(late),
        unmatched=unmatched,
        uncorrected=uncorrected,
        classes=names.added,
        redrawn=tuple(redrawn for plan in plans.values() for redrawn in plan.redrawn),
        accepted=sum(bool(options.accept or plans[image].source.accepted) for image in unchanged),
        repeated=sum(plan.done for plan in plans.values()),
    )
    return result, list(late.values())


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


def _whole_format(source: Path, run: Run, options: CorrectOptions) -> tuple[Path, CorrectOptions]:
    """Return a source with all that belongs to it: the pictures of the folder's panoptic files are nothing without their list."""
    form = FORMATS["panoptic"]
    if any(_is_below(source, run.output / name) for name in (str(form.folder), *form.files)):
        return run.output, replace(options, source_format=form.name)
    return source, options


def _readers(options: CorrectOptions, source_run: SourceRun | None, files: Source, run: Run) -> Sequence[Format]:
    """Return what reads the documents of a source, in the order in which a person made them."""
    objects = FORMATS["instances"]
    if options.source_format in (None, objects.name) and _is_below(files.path, run.output / str(objects.folder)):
        return [objects]
    refuse_parts(files.path)
    if options.source_format is not None:
        return find_reading_format(options.source_format).parts(files)
    form = detect_reader(files) or (source_run and source_run.masks_of(files)) or detect_format(files)
    return form.parts(files)


def _mark_own(images: Iterable[SourceImage], run: Run, source: Path) -> Iterator[SourceImage]:
    """Yield images with what the run knows of its own files: whether a person changed them, and the labels that they showed."""
    if not _is_below(source, run.output):
        yield from images
        return
    held = ("", *run.cache.names())
    rows = [(image, row) for image in held for row in run.cache.files(image).values() if row.is_file]
    rows += [(image, row) for image, row, _ in run.cache.orphans()]  # edited before its picture was renamed
    known = {Path(os.path.realpath(run.files.path(row.place))): (image, row) for image, row in rows}
    for source_image in images:
        image, row = known.get(Path(os.path.realpath(source_image.where)), ("", None))
        if row is None:
            yield source_image
        elif run.files.look(row) == "ours":
            yield replace(source_image, ours=True)
        else:
            # No tool exported the file, which might lose objects: a person removed what it lacks.
            yield replace(source_image, base=row.shows[:BASE_LENGTH] if image else "", submitted=True)


def _is_below(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _match(
    images: Iterable[SourceImage], run: Run, source_run: SourceRun | None, source: Path, progress: Progress
) -> tuple[dict[str, SourceImage], tuple[str, ...]]:
    """Return the corrections by image of the run, in image order, and the names of those that match none. Note ignored ones.

    A picture is found by its pixels, if the source knows them, or else by its name.

    Raise InputError if no image matches, ImageError if a match is ambiguous or an image has two corrections.
    """
    named, found, other_pictures = index_images(images), dict[str, SourceImage](), list[str]()
    seen = [each for each in named.values() if each.picture]
    pictures = run.pictures() if seen else {}
    for source_image in seen:
        del named[source_image.name]
        alike, name = pictures.get(source_image.picture, []), run.now(source_image.name)
        if name is not None and name in alike:
            found[name] = source_image
        elif len(alike) == 1:
            found.setdefault(alike[0], source_image)
        else:
            other_pictures.append(source_image.name)
    known = set[str]()
    for by_list, is_other in ((False, False), (False, True), (True, False)):  # a list says less than the other files
        rest = [each for name, each in named.items() if each.by_list == by_list and name not in known]
        own = {(each.other_name() if each.other_name else "") if is_other else each.name: each for each in rest}
        at_hand = _find_by_name(own, run)
        known |= {each.name for each in at_hand.values()}
        found = {**at_hand, **found}
    missing = [name for name in named if name not in known]
    uncorrected = [] if source_run is None else source_run.uncorrected
    if not found and not uncorrected:
        if other_pictures:
            raise InputError(
                f"{source}: the run has different pictures with these names: {_join(other_pictures)}",
                "Correct the labels of the same pictures.",
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
        (uncorrected, f" that nobody corrected. {COPY}"),
    ):
        if ignored:
            progress.note("not_matched", images=pluralize(len(ignored), "image"), source=source, reason=reason)
    return {image: found[image] for image in sorted(found, key=name_order)}, (*missing, *other_pictures)


def _find_by_name(named: Mapping[str, SourceImage], run: Run) -> dict[str, SourceImage]:
    """Return the images of a run that have one of these names. Raise ImageError if a match is ambiguous."""
    names = SourceNames(filter(None, named))
    names.previous = run.previous
    refs = run.refs() if named else []
    names.expect(refs)
    return {ref.name: named[name] for ref in refs if (name := names.find(ref)) is not None}


def _keep_unseen(
    source: Path, plans: Mapping[str, Plan], progress: Progress, *, accept: bool, partly: bool
) -> dict[str, Plan]:
    """Return the plans that change a mask, but none that would empty it without permission. Note emptied images.

    An image without objects counts as reviewed if its source says so, and another image of it has objects: some exports lose the
    objects of all images; `partly` if it has others. With `accept`, a person looked at all images.

    Raise InputError if no image has objects, and nobody looked at them.
    """
    changed = {image: plan for image, plan in plans.items() if plan.mask is not None}
    emptied = [image for image, plan in changed.items() if plan.mask is not None and plan.mask.emptied]
    all_empty = not partly and all(plan.empty for plan in plans.values())
    if emptied and all_empty and not accept:
        raise InputError(
            f"{source}: no image has objects: {join_first(emptied, 20)}",
            Words(
                "Some tools lose all objects when they export; see that the file has yours. If the images have none, add {accept}."
            ),
        )
    unsure = [image for image in emptied if not accept and not plans[image].source.submitted]
    if unsure:
        number, names = pluralize(len(unsure), "image"), join_first(unsure, 20)
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
    if is_older(saved, before.saved):
        return
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
    if before.saved and browser_of(saved) != browser_of(before.saved):
        saved = before.saved
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


# ---- report ----


def _print_result(result: Corrections, source: Path, progress: Progress, options: CorrectOptions) -> None:
    progress.results(mask.path for mask in result.masks)
    if result.classes:
        progress.note("new_classes", classes=join_first(result.classes, 10))
    if result.redrawn:
        objects = join_first([str(redrawn) for redrawn in result.redrawn], _OBJECTS_NAMED)
        progress.note("redrawn", number=pluralize(len(result.redrawn), "object"), source=source, objects=objects)
        if not result.masks:
            progress.note("exact_exports")
    would = "would be " if options.dry_run else ""
    more = f", {result.accepted} of them accepted" if result.accepted else ""
    more += f", {result.repeated} of them imported before" if result.repeated else ""
    progress.note(
        "corrected", masks=pluralize(len(result.masks), "mask"), would=would, unchanged=len(result.unchanged), more=more
    )


def _join(names: Iterable[str]) -> str:
    return join_first([shorten(name) for name in names], 5)
