"""`tipsseg correct`: import corrected labels into the output folder of a run, all or nothing.

First, read and check all corrections, and write the new masks beside the old ones under temporary names. Then put them in place,
and bring the derived files up to date. The same command resumes after an interruption.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tipsseg.errors import ImageError, InputError
from tipsseg.formats import detect_format, find_reading_format, format_name, refuse_parts
from tipsseg.formats.base import Format
from tipsseg.formats.corrections import ClassNames, Objects, SourceImage
from tipsseg.formats.names import ImageNames
from tipsseg.formats.source import Source
from tipsseg.options import MAX_PIXELS, default_jobs
from tipsseg.options.run import DEFAULT_CORRECT_OPTIONS, CorrectOptions
from tipsseg.run.derive import Derived
from tipsseg.run.entry import Correction, FileRow
from tipsseg.run.files import digest_of, discard
from tipsseg.run.folder import OutputFolder, change_folder, recorded_ref
from tipsseg.run.labels import stamped
from tipsseg.run.read import Run, RunImage, open_run, refuse_overlap, refuse_raster, refuse_shards, require_run
from tipsseg.run.settle import Settled, settle
from tipsseg.run.spec import RunInfo
from tipsseg.run.state import State
from tipsseg.runs.common.inputs import check_image_root
from tipsseg.runs.common.notes import note_settled
from tipsseg.runs.common.only import find_only
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.convert import refer_to
from tipsseg.runs.correct.from_run import SourceRun, find_source_run
from tipsseg.runs.correct.page import FORMAT, find_page
from tipsseg.runs.correct.planning import CorrectedMask, Outcome, Plan, Planner, RedrawnObject
from tipsseg.types import name_order, printable_path
from tipsseg.util.files import json_bytes
from tipsseg.util.printable import join_first, pluralize, shorten

#: The maximum number of failures to print.
_FAILURES_SHOWN = 20

#: The maximum number of redrawn objects to name.
_OBJECTS_NAMED = 5

_EXPORT_IS_EMPTY = "Some tools lose all objects when they export; see that the file has yours."
_NOT_REVIEWED = "The source does not record whether a person removed the objects or never opened the image."

#: How to export exact outlines from tools that redraw objects.
EXACT_EXPORTS = (
    'This export rounds outlines. For exact ones: in CVAT, upload without "Convert masks to polygons"; from FiftyOne, export '
    "ImageSegmentationDirectory with `rel_dir`."
)


@dataclass(frozen=True, slots=True)
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

    format: str
    masks: tuple[CorrectedMask, ...]
    unchanged: tuple[str, ...]
    unmatched: tuple[str, ...]
    uncorrected: tuple[str, ...]
    classes: tuple[str, ...]
    redrawn: tuple[RedrawnObject, ...] = ()
    failed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Matches:
    """Pairs of an image and its correction, in image order, and the names of ignored corrections."""

    pairs: tuple[tuple[str, SourceImage], ...]
    missing: tuple[str, ...]
    other_pictures: tuple[str, ...]
    uncorrected: tuple[str, ...]


def take_corrections(
    output: Path,
    source: Path,
    progress: Progress,
    options: CorrectOptions = DEFAULT_CORRECT_OPTIONS,
    *,
    jsonl: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Corrections:
    """Import corrected labels into the output folder of a run, as masks that a person edited.

    Args:
        output: The output folder.
        source: The file, folder or zip archive with the corrections.
        progress: Prints progress, results and notes.
        options: See CorrectOptions.
        jsonl: Print a JSON line for each mask instead of its path.
        max_pixels: Images with more pixels are rejected.

    Raises InputError if the folder does not contain a finished run, or the corrections cannot be imported as a whole.
    """
    check_image_root(options.images)
    refuse_shards(output)
    with ExitStack() as stack:
        folder = None
        if options.dry_run:
            run = stack.enter_context(open_run(output, max_pixels=max_pixels))
        else:
            folder = stack.enter_context(change_folder(partial(_run_to_correct, max_pixels), output))
            run = Run(folder.info, folder.state, max_pixels)
        refuse_raster(run.info)
        refuse_overlap(run.info, "corrections are index masks")
        refuse_parts(source)
        files = stack.enter_context(Source(source))
        source_run = find_source_run(files, run.output, everything=options.everything)
        reader = _reader(options, source_run, files, run)
        edited = {} if folder is None else _edited_below(folder, Path(os.path.realpath(source)), reader.name)
        names = ClassNames(run.classes, add=options.add_classes)
        matches = _match(reader.read(files, names), run, source_run, files.path, options)
        images = [image for image, _ in matches.pairs]
        progress.begin(
            f"Importing {pluralize(len(images), 'image')} of {source} ({reader.name}) into {run.output}.", len(images)
        )
        planner = Planner(run, names, printable_path(source.absolute()), reader.name, options)
        outcomes: dict[str, Outcome] = {}
        _plan_all(matches.pairs, run, planner, outcomes, progress)
        names.raise_unknown()
        progress.end()
        plans = _without_unseen(source, matches, options.emptied, outcomes, progress)
        unchanged = tuple(image for image in images if outcomes[image].plan is None)
        settled, late = Settled(), list[ImageError]()
        if folder is not None:
            late = _write(folder, plans, names.added)
            if options.accept:
                _accept(folder, unchanged, planner)
            _take_in(
                folder,
                edited,
                {*(plan.mask.image for plan in plans), *unchanged},
                whole=len(plans) + len(unchanged) == len(images),
            )
            settled = settle(folder, default_jobs(), refer=partial(refer_to, options.images))
            folder.finish_changes()
        result = Corrections(
            format=reader.name,
            masks=tuple(plan.mask for plan in plans if plan.mask.path not in [error.path for error in late]),
            unchanged=unchanged,
            unmatched=(*matches.missing, *matches.other_pictures),
            uncorrected=matches.uncorrected,
            classes=names.added,
            redrawn=tuple(redrawn for image in images for redrawn in outcomes[image].redrawn),
            failed=len(late) + len(settled.failed) + (0 if folder is None else len(folder.unwritten)),
        )
        _print_result(result, matches, source, progress, jsonl=jsonl, options=options)
        for error in (*late, *settled.failed):
            progress.error(error)
        if folder is not None:
            note_settled(folder, settled, progress)
        return result


def _run_to_correct(max_pixels: int, state: State) -> RunInfo:
    info = require_run(state)
    return replace(info, spec=replace(info.spec, max_pixels=max_pixels))


def undo_corrections(output: Path, paths: Sequence[Path], progress: Progress, *, dry_run: bool = False) -> None:
    """Let the next run label images again that a person corrected. Their masks stay until then.

    Raises:
        InputError: The folder has no finished run, or an image is not in it, or nobody corrected it. Nothing was changed.
    """
    refuse_shards(output)
    with change_folder(require_run, output) as folder:
        names, unknown = find_only(folder.state.entries(), paths, None)
        run = Run(folder.info, folder.state, folder.info.spec.max_pixels)
        others = [str(path) for path in unknown] + [name for name in sorted(names) if not _is_theirs(run.image(name))]
        if others:
            raise InputError(
                f"{output}: no correction of {join_first(others, 3)}", "Name corrected images of this folder."
            )
        for image in map(run.image, sorted(names)):
            progress.results([folder.files.path(row.place) for row in image.label_files[:1]])
            if dry_run:
                continue
            # The mask may be invalid or gone: the next run replaces it.
            rows = [stamped(row, output) for row in image.label_files if folder.files.look(row) != "gone"]
            correction = replace(image.entry.correction or Correction(), undone=True)
            folder.state.add(image.entry.with_correction(correction), rows, {})
        if not dry_run:
            folder.finish_changes()
        done = "Would undo" if dry_run else "Undid"
        progress.note(f"{done} {pluralize(len(names), 'correction')}; the next run labels these images again.")


def _is_theirs(image: RunImage) -> bool:
    """Return True if a person corrected an image, also if that is undone."""
    return image.corrected or image.entry.undone


def _reader(options: CorrectOptions, source_run: SourceRun | None, files: Source, run: Run) -> Format:
    if options.source_format in (None, FORMAT) and (reader := find_page(files, run)):
        return reader
    if options.source_format == FORMAT:
        raise InputError(
            f"{files.path}: not a corrections.json of the report page", "Pass the file that the page saved."
        )
    if options.source_format is not None:
        return find_reading_format(options.source_format)
    return (source_run and source_run.masks_of(files)) or detect_format(files)


def _match(
    images: Iterable[SourceImage], run: Run, source_run: SourceRun | None, source: Path, options: CorrectOptions
) -> _Matches:
    """Match the images in a source with images of the run.

    Raises InputError if no image matches, if a match is ambiguous, or if an image has no mask.
    """
    if source_run is not None and not options.everything:
        images = source_run.select_corrected(images, run.info.digest)
    names = ImageNames(run.state.names())
    pairs: dict[str, SourceImage] = {}
    missing: dict[str, None] = {}
    other_pictures: dict[str, None] = {}
    for source_image in images:
        image = names.find(source_image.name)
        if image is None and source_image.other_name is not None and (other_name := source_image.other_name()):
            image = names.find(other_name)
        if image is None:
            missing[source_image.name] = None
        elif source_run is not None and source_run.has_other_picture(source_image, run.image(image).entry):
            other_pictures[source_image.name] = None
        elif image not in pairs:
            pairs[image] = source_image
        elif not source_image.by_list:
            other = pairs[image]
            raise InputError(
                f"{source}: two corrections of {image}: {shorten(other.name)} ({other.where}) "
                f"and {shorten(source_image.name)} ({source_image.where})",
                "Remove one of them.",
            )
    matches = _Matches(
        tuple(sorted(pairs.items(), key=lambda pair: name_order(pair[0]))),
        tuple(missing),
        tuple(other_pictures),
        () if source_run is None else tuple(source_run.uncorrected),
    )
    if not pairs and not matches.uncorrected:
        raise _no_match_error(source, matches)
    return matches


def _no_match_error(source: Path, matches: _Matches) -> InputError:
    if matches.other_pictures:
        return InputError(
            f"{source}: the run has different pictures with these names: {_names(matches.other_pictures)}",
            "Correct the labels of the same image files.",
        )
    reason = f"the run has no image {_names(matches.missing)}" if matches.missing else "no corrected images"
    return InputError(
        f"{source}: {reason}",
        "An image matches if its path ends with the name in the corrections, or the name ends with its path; suffixes may differ. "
        "Label Studio exports submitted annotations, not predictions.",
    )


def _plan_all(
    pairs: Sequence[tuple[str, SourceImage]],
    run: Run,
    planner: Planner,
    outcomes: dict[str, Outcome],
    progress: Progress,
) -> None:
    """Add the outcome of each image to `outcomes`, and note skipped shapes. Raises InputError if a correction cannot be imported.

    Unedited objects show whether the source writes objects exactly, so images that depend on this are planned last.
    """
    failed = same = redrawn = boxes = 0
    skipped = Counter[str]()
    undecided: dict[str, SourceImage] = {}
    for image, source_image in pairs:
        try:
            correction = planner.compare(run.image(image), source_image)
            if isinstance(correction.new, Objects):
                skipped.update(correction.new.skipped)
            if correction.objects is not None:
                boxes += len(correction.objects.boxes)
                same += len(correction.objects.same)
                redrawn += len(correction.objects.redrawn.intersection(correction.objects.partners))
            if planner.depends_on_source(correction):
                undecided[image] = source_image
                outcomes[image] = planner.outcome_if_redrawn(correction)
                continue
            outcomes[image] = planner.plan(correction, exact=True)
        except ImageError as error:
            failed = _print_failure(error, failed, progress)
        progress.advance()
    exact = same >= redrawn
    for image, source_image in undecided.items():
        try:
            if exact or not outcomes[image].final:
                # Read again, because the corrections of all images may not fit into memory.
                correction = planner.compare(run.image(image), source_image)
                outcomes[image] = planner.plan(correction, exact=exact)
        except ImageError as error:
            failed = _print_failure(error, failed, progress)
        progress.advance()
    if failed:
        more = f" (the first {_FAILURES_SHOWN} are printed above)" if failed > _FAILURES_SHOWN else ""
        raise InputError(
            f"{failed} of {pluralize(len(pairs), 'correction')} cannot be imported{more}; nothing was changed",
            "Fix them in the tool that exported them, or leave them out, and run the same command again.",
        )
    for kind, number in skipped.items():
        progress.note(f"Skipped {pluralize(number, 'shape')} without pixels: {kind}.")
    if boxes:
        progress.note(f"Filled {pluralize(boxes, 'box', 'boxes')} without polygons.")


def _print_failure(error: ImageError, failed: int, progress: Progress) -> int:
    if failed < _FAILURES_SHOWN:
        progress.error(error)
    return failed + 1


def _without_unseen(
    source: Path, matches: _Matches, empty: bool | None, outcomes: Mapping[str, Outcome], progress: Progress
) -> list[Plan]:
    """Return the plans, except those that would empty a mask without permission. Note images that lose all their objects.

    An image without objects counts as reviewed if its source says so, and another image of it has objects: some exports lose the
    objects of all images. `empty` is the user's choice for the other ones. Raises InputError if it is needed, but None.
    """
    all_empty = not matches.uncorrected and all(outcome.empty for outcome in outcomes.values())
    unseen = {image for image, source_image in matches.pairs if all_empty or not source_image.submitted}
    changed = [plan for image, _ in matches.pairs if (plan := outcomes[image].plan) is not None]
    emptied = [plan.mask.image for plan in changed if plan.mask.emptied]
    skipped = [plan for plan in changed if plan.mask.emptied and plan.mask.image in unseen]
    unsure = [plan.mask.image for plan in skipped]
    number, names = pluralize(len(unsure), "image"), join_first(unsure, 20)
    if unsure and empty is None:
        raise InputError(
            f"{source}: {'no image has objects' if all_empty else f'{number} without objects'}: {names}",
            f"{_EXPORT_IS_EMPTY if all_empty else _NOT_REVIEWED} Empty the masks with argument `emptied`, or leave these images as "
            "they are with argument `emptied`=False.",
        )
    if unsure and not empty:
        progress.note(f"Left {number} without objects in {source} unchanged: {names}.")
        discard([plan.file for plan in skipped if plan.file is not None])
        return [plan for plan in changed if not plan.mask.emptied or plan.mask.image not in unseen]
    if emptied:
        progress.note(f"{pluralize(len(emptied), 'image')} with no objects left: {join_first(emptied, 20)}.")
    return changed


def _write(folder: OutputFolder, plans: Sequence[Plan], classes: Sequence[str]) -> list[ImageError]:
    """Put new masks in place. Return the errors of masks that a person changed meanwhile: they are kept."""
    late = list[ImageError]()
    if classes:
        folder.add_classes(classes)
    for plan in plans:
        assert plan.entry is not None
        assert plan.file is not None
        entry, rows = plan.entry, folder.state.files(plan.mask.image)
        folder.files.may_put(plan.file, rows.get(plan.file.row.place))
        if digest_of(plan.mask.path) != plan.before:
            plan.file.discard()
            what = "changed while the corrections were read, so it was kept"
            late.append(ImageError(plan.mask.path, what, "Run the same command again."))
            continue
        folder.put(recorded_ref(entry), entry, [plan.file], Derived(), rows, coming=entry.correction_text)
    return late


def _accept(folder: OutputFolder, images: Sequence[str], planner: Planner) -> None:
    """Record images as a person's that their source shows unchanged."""
    for image in images:
        entry = folder.state.get(image)
        if entry is not None and not entry.corrected:
            accepted = entry.with_correction(Correction(source=planner.source, format=planner.format))
            folder.state.add(accepted, (), {})


def _edited_below(folder: OutputFolder, source: Path, read_as: str) -> dict[str, tuple[str, FileRow, str]]:
    """Return the files below `source` that a person changed and a reader reads, by place: image, record and digest."""
    found = {}
    top = Path(os.path.realpath(folder.path))
    for image in ("", *folder.state.names()) if source.is_relative_to(top) else ():
        for row in folder.state.files(image).values():
            path, form = folder.files.path(row.place), format_name(row.name)
            if not row.is_file or form in folder.context.labels or form.partition("-")[0] != read_as.partition("-")[0]:
                continue
            is_edited = folder.files.look(row) in ("edited", "taken")
            if is_edited and Path(os.path.realpath(path)).is_relative_to(source):
                found[row.place] = image, row, digest_of(path)
    return found


def _take_in(
    folder: OutputFolder, edited: Mapping[str, tuple[str, FileRow, str]], images: Container[str], *, whole: bool
) -> None:
    """Record edited files as taken in, as they were when they were read: they stay, and show the labels of now.

    A file for the whole run is taken in if the `whole` of its images was.
    """
    for image, row, digest in edited.values():
        entry = folder.state.get(image) if image else None
        if image in images or (not image and whole):
            shows = "" if entry is None else folder.deriver.shows(format_name(row.name), entry)
            folder.state.set_files(image, [replace(row, taken=digest, shows=shows)])
            folder.taken |= set() if image else {folder.files.path(row.place)}


def _print_result(
    result: Corrections, matches: _Matches, source: Path, progress: Progress, *, jsonl: bool, options: CorrectOptions
) -> None:  # fmt: skip
    for mask in result.masks:
        if jsonl:
            record = {"image": mask.image, "mask": printable_path(mask.path), "changed": mask.changed}
            progress.text(json_bytes(record).decode() + "\n")
        else:
            progress.results([mask.path])
    if result.classes:
        progress.note(f"New classes: {join_first(result.classes, 10)}.")
    for names, reason in (
        (matches.missing, " not in the run: {}."),
        (matches.other_pictures, ", because the run has different pictures with these names: {}."),
        (result.uncorrected, " that nobody corrected; argument `everything` imports the model's labels too."),
    ):
        if names:
            progress.note(f"Ignored {pluralize(len(names), 'image')} of {source}{reason.format(_names(names))}")
    if result.redrawn:
        objects = join_first([str(redrawn) for redrawn in result.redrawn], _OBJECTS_NAMED)
        progress.note(
            f"Left {pluralize(len(result.redrawn), 'object')} of {source} unchanged, because only edges differ or the object is "
            f"too thin to export: {objects}. Argument `exact` imports every difference."
        )
        if not result.masks:
            progress.note(EXACT_EXPORTS)
    would = "would be " if options.dry_run else ""
    accepted = " and accepted" if options.accept else ""
    progress.note(
        f"{pluralize(len(result.masks), 'mask')} {would}corrected, {len(result.unchanged)} unchanged{accepted}."
    )


def _names(names: Sequence[str]) -> str:
    return join_first([shorten(name) for name in names], 5)
