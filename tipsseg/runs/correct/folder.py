"""`tipsseg correct`: corrected labels come back into the output folder of a run, all of them or none.

All is read and checked first, and the new masks are written beside the old ones under temporary names. Then the manifest says where
they come from, and they get their names. What is broken off in between goes on when the same is asked for again.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tipsseg.errors import ImageError, InputError
from tipsseg.formats import index_masks, of_the_model
from tipsseg.formats.reading.found import Found
from tipsseg.formats.reading.ids import ClassNames
from tipsseg.formats.reading.recognising import Reader, find_reader, recognise
from tipsseg.formats.reading.source import Source
from tipsseg.options import MAX_PIXELS
from tipsseg.options.run import DEFAULT_CORRECT_OPTIONS, CorrectOptions
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.correct.from_run import find_source_run
from tipsseg.runs.correct.names import ImageNames
from tipsseg.runs.correct.planning import CorrectedMask, KeptObject, Outcome, Plan, Planner, discard
from tipsseg.store.change_run import RunChanges, change_run
from tipsseg.store.open_run import Run, broken_conversion, conversion_begun, open_run
from tipsseg.types import name_order, printable_path
from tipsseg.util.files import json_bytes, output_error
from tipsseg.util.printable import counted, listed, shell_word, shortened

#: Faults that are told of one by one.
_TOLD = 20

#: Objects that are named of those that stay although their edges differ.
_NAMED = 5

#: How tools that redraw objects export them as they are.
EXACT_EXPORTS = (
    'This export rounds outlines. Exact ones: in CVAT upload without "Convert masks to polygons"; from FiftyOne export '
    "ImageSegmentationDirectory, with `rel_dir`."
)


@dataclass(frozen=True, slots=True)
class Corrections:
    """What was taken in.

    Attributes:
        format: The format that the corrections were in.
        masks: The masks that were corrected, in the order of the images.
        unchanged: The images whose masks were as the corrections say.
        unmatched: Images of the corrections that the folder does not have, as the corrections call them.
        left_out: Images of a run that nobody corrected, as the corrections call them.
        classes: The names of the classes that were added.
        kept: The objects that stay as they were, as their outlines differ by no more than tools move them; see `take_corrections`.
    """

    format: str
    masks: tuple[CorrectedMask, ...]
    unchanged: tuple[str, ...]
    unmatched: tuple[str, ...]
    left_out: tuple[str, ...]
    classes: tuple[str, ...]
    kept: tuple[KeptObject, ...] = ()


def take_corrections(
    output: Path,
    source: Path,
    progress: Progress,
    options: CorrectOptions = DEFAULT_CORRECT_OPTIONS,
    *,
    jsonl: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Corrections:
    """Take corrected labels into the output folder of a run, as masks that a person changed.

    Args:
        output: The output folder.
        source: The file, the folder or the zip that has the corrections.
        progress: Is told of every image.
        options: Which of the corrections are taken.
        jsonl: Whether a line of JSON for each mask takes the place of its path.
        max_pixels: Larger images are refused.

    Raises:
        UsageError: For an unknown format.
        InputError: For a folder that is no output folder of a finished run, and for corrections that cannot be taken as a whole.
        OutputError: Where the folder cannot be written.
    """
    reader = None if options.source_format is None else find_reader(options.source_format)
    with ExitStack() as stack:
        changes = None if options.dry_run else stack.enter_context(change_run(output, max_pixels=max_pixels))
        run = changes.run if changes else stack.enter_context(open_run(output, max_pixels=max_pixels))
        if begun := conversion_begun(run.info, run.records):
            raise broken_conversion(output, begun)
        found = _take(options, reader, run, changes, stack.enter_context(Source(source)), progress)
        _tell(found, progress, output, source, dry_run=options.dry_run, jsonl=jsonl)
        if found.masks and not options.dry_run:
            _advise(run, progress)
        return found


def _take(
    options: CorrectOptions, reader: Reader | None, run: Run, changes: RunChanges | None, files: Source, progress: Progress
) -> Corrections:  # fmt: skip
    """Read and check all, then write it, unless there is nothing to write into."""
    labelled = find_source_run(files, run.output, everything=options.everything)
    reader = reader or (labelled and labelled.reader(files)) or recognise(files)
    names = ClassNames(run.classes, add=options.add_classes)
    images = reader.images(files, names)
    if labelled is not None and not options.everything:
        images = labelled.corrected(images, run.info.digest)
    matched, unmatched = _matched(images, run, files.path)
    left_out = () if labelled is None else tuple(labelled.left_out)
    if not matched and not left_out:
        raise _nothing_matched(files.path, unmatched)
    planner = Planner(run.context, printable_path(files.path.absolute()), reader.name, options)
    number = counted(len(matched), "image")
    progress.begin(f"{number} of {files.path} ({reader.name}) into {run.output}.", len(matched))
    plans: list[Plan] = []
    try:
        outcomes = _plan_all(matched, run, planner, plans, progress)
        names.refuse()
        progress.end()
        waiting = {image for image, found in matched if not found.submitted}
        left = _settle_emptied(files.path, waiting, options.emptied, plans, progress)
        if changes is not None:
            if names.added:
                changes.add_classes(names.added)
            _put(plans, changes)
    finally:
        for plan in plans:
            discard(plan.places)
    masks = tuple(plan.mask for plan in plans)
    unchanged = tuple(image for image, outcome in outcomes.items() if outcome.plan is None or image in left)
    kept = tuple(each for outcome in outcomes.values() for each in outcome.kept)
    return Corrections(reader.name, masks, unchanged, tuple(unmatched), left_out, names.added, kept)


def _matched(images: Iterable[Found], run: Run, source: Path) -> tuple[list[tuple[str, Found]], list[str]]:
    """Return the images of a source by the images of the run, in their order, and the names of those that the run does not have.

    Raises InputError if it is open which image is meant, or if an image has no mask.
    """
    known = ImageNames(entry.image for entry in run.entries())
    matched: dict[str, Found] = {}
    unmatched: dict[str, None] = {}
    for found in images:
        image = known.find(found.name)
        if image is None:
            unmatched[found.name] = None
        elif image in matched and found.by_list:
            continue
        elif image in matched:
            other = matched[image]
            raise InputError(
                f"{source}: two corrections of {image}: {shortened(other.name)} ({other.where}) "
                f"and {shortened(found.name)} ({found.where})",
                "Leave out the one that does not count.",
            )
        else:
            matched[image] = found
    bare = [image for image in matched if not set(index_masks()) & set(run.entry(image).formats)]
    if bare:
        folder = shell_word(str(run.output))
        raise InputError(
            f"{run.output}: no index mask of {listed(bare, 3)}, which corrections are kept in",
            f"Write masks first: tipsseg convert {folder} --format png",
        )
    return sorted(matched.items(), key=lambda pair: name_order(pair[0])), list(unmatched)


def _nothing_matched(source: Path, unmatched: Sequence[str]) -> InputError:
    names = listed([shortened(name) for name in unmatched], 3)
    what = f"its images, such as {names}, are none of the run" if unmatched else "no image in it"
    return InputError(
        f"{source}: {what}",
        "The path of an image has to end as the correction calls it, or the other way round; suffixes of files may differ. "
        "Label Studio exports what was submitted, not what was only predicted.",
    )


def _plan_all(
    matched: Sequence[tuple[str, Found]], run: Run, planner: Planner, plans: list[Plan], progress: Progress
) -> Mapping[str, Outcome]:
    """Add the new masks to `plans`, in the order of the images; return what becomes of each image.

    Whether a source writes objects exactly shows in those that nobody edited. So images that depend on it are planned once all have
    been looked at. Raises InputError if a correction cannot be taken.
    """
    outcomes: dict[str, Outcome] = {}
    faults = 0

    def plan(image: str, found: Found, exact: bool | None) -> None:
        nonlocal faults
        try:
            outcomes[image] = planner.plan(run.image(run.entry(image)), found, exact)
        except ImageError as error:
            outcomes[image] = Outcome()
            faults += 1
            if faults <= _TOLD:
                progress.error(error)
        made = outcomes[image].plan
        if made is not None:
            plans.append(made)
        if not outcomes[image].open:
            progress.advance()

    for image, found in matched:
        plan(image, found, None)
    exact = sum(each.same for each in outcomes.values()) >= sum(each.redrawn for each in outcomes.values())
    for image, found in matched:
        if outcomes[image].open and outcomes[image].idle and not exact:
            progress.advance()
        elif outcomes[image].open:
            plan(image, found, exact)
    plans.sort(key=lambda plan: name_order(plan.mask.image))
    if faults:
        more = f", of which {_TOLD} are told above" if faults > _TOLD else ""
        raise InputError(
            f"{counted(faults, 'correction')} of {len(matched)} cannot be taken{more}; nothing was changed",
            "Mend them where they come from, or leave them out, and run the same command again.",
        )
    return outcomes


def _settle_emptied(
    source: Path, waiting: Container[str], empty: bool | None, plans: list[Plan], progress: Progress
) -> list[str]:
    """Name the images that lose all their objects. Return those that stay as they are, and take them out of `plans`.

    Args:
        source: The corrections.
        waiting: Images that a person may not have seen.
        empty: Whether the masks of such images are emptied. None: nobody said so.
        plans: The new masks.
        progress: Is told of the images.

    Raises:
        InputError: The source does not tell why images have no objects, and nobody said what becomes of them.
    """
    emptied = [plan for plan in plans if plan.mask.emptied]
    unsure = [plan for plan in emptied if plan.mask.image in waiting]
    names = listed([plan.mask.image for plan in unsure], 20)
    if unsure and empty is None:
        raise InputError(
            f"{source}: {counted(len(unsure), 'image')} without objects: {names}",
            "It does not tell whether a person removed the objects or never saw the image. Empty the masks with argument "
            "`emptied`, or leave these images as they are with argument `emptied`=False.",
        )
    if unsure and not empty:
        progress.note(f"{counted(len(unsure), 'image')} without objects in {source}, and left as before: {names}.")
        for plan in unsure:
            plans.remove(plan)
            discard(plan.places)
        return [plan.mask.image for plan in unsure]
    if emptied:
        names = listed([plan.mask.image for plan in emptied], 20)
        progress.note(f"{counted(len(emptied), 'image')} with no objects left: {names}.")
    return []


def _put(plans: Sequence[Plan], changes: RunChanges) -> None:
    """Give the new masks their names. Raises OutputError."""
    # The manifest first: by it a mask that is in place is known as one that was taken in, should this be killed.
    for plan in plans:
        changes.add(plan.entry)
    for plan in plans:
        for path, temporary in plan.places:
            try:
                temporary.replace(path)
            except OSError as error:
                raise output_error(path, error) from error
    changes.tidy()


def _tell(
    found: Corrections, progress: Progress, output: Path, source: Path, *, dry_run: bool, jsonl: bool
) -> None:  # fmt: skip
    for mask in found.masks:
        if jsonl:
            progress.text(json_bytes(_record(mask)).decode() + "\n")
        else:
            progress.results([mask.path])
    if found.classes:
        progress.note(f"New classes: {listed(found.classes, 10)}.")
    if found.unmatched:
        number = counted(len(found.unmatched), "image")
        names = listed([shortened(name) for name in found.unmatched], 5)
        progress.note(f"{number} of {source} not in {output}, and left out: {names}.")
    if found.left_out:
        number = counted(len(found.left_out), "image")
        progress.note(
            f"{number} of {source} as tipsseg labelled {'it' if len(found.left_out) == 1 else 'them'}, and left out; "
            "argument `everything` takes such labels too."
        )
    if found.kept:
        number = counted(len(found.kept), "object")
        which = "No object was changed: " if not found.masks else ""
        progress.note(
            f"{which}{number} of {source} differ at their edges only, or are too thin to come back, and stay as they were: "
            f"{listed([str(each) for each in found.kept], _NAMED)}. Argument `exact` takes them."
        )
    if found.kept and not found.masks:
        progress.note(EXACT_EXPORTS)
    would = "would be " if dry_run else ""
    progress.note(f"{counted(len(found.masks), 'mask')} {would}corrected, {len(found.unchanged)} unchanged.")


def _advise(run: Run, progress: Progress) -> None:
    """Name the formats of the run that do not have the corrections yet, and the command that takes them there."""
    mask = next((name for name in index_masks() if name in run.formats), "png")
    if others := [name for name in run.formats if name != mask and name not in of_the_model()]:
        follow = "follows" if len(others) == 1 else "follow"
        command = f"tipsseg convert {shell_word(str(run.output))} --format {others[0]}"
        progress.note(f"{', '.join(others)} {follow} with: {command}")


def _record(mask: CorrectedMask) -> Mapping[str, object]:
    return {"image": mask.image, "mask": printable_path(mask.path), "changed": mask.changed}
