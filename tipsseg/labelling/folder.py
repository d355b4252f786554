"""Label images into a folder: `tipsseg label` as functions, which show a bar alone by default."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from tipsseg.address import suffix_of
from tipsseg.backbones.registry import read_sizes
from tipsseg.errors import ImageError, UsageError
from tipsseg.folder.entry import Entry
from tipsseg.folder.find import Choice, Images, find_images
from tipsseg.folder.folder import OutputFolder
from tipsseg.folder.lock import is_locked
from tipsseg.folder.moves import find_moves
from tipsseg.folder.notes import Reporter, classes_text, list_counts, note_reasons, note_renamed, note_vocabulary
from tipsseg.folder.outcome import FolderImage, Status
from tipsseg.folder.read import open_run
from tipsseg.folder.results import ImageResult, Labelled, Unchanged
from tipsseg.folder.spec import RunSpec
from tipsseg.formats import FORMATS
from tipsseg.formats.blocks import BlockFormat, BlockMask
from tipsseg.images.access import is_plain, needs_hold
from tipsseg.labelling.images import check_prune
from tipsseg.labelling.view import view_of
from tipsseg.masks.labels import join_classes
from tipsseg.options import DEFAULT_FORMATS, ONE_SCALE
from tipsseg.options.records import LabelOptions
from tipsseg.plugins import load_plugin, names
from tipsseg.say import Progress
from tipsseg.types import Failed, ImageRef
from tipsseg.util.text import join_first, pluralize, shell_word
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.sources import find_model

#: The number of images of which the preferred format is looked at.
_LOOKED_AT = 20


def labelled_images(
    results: Generator[ImageResult, None, None], reporter: Reporter
) -> Generator[FolderImage, None, int]:
    """Yield the images of a run, and return the number of failures; an interruption says how far the run came."""
    try:
        with closing(results):
            for result in results:
                if isinstance(result, Failed):
                    yield FolderImage(path=result.ref.path, name=result.ref.name, status="failed", error=result.error)
                else:
                    status: Status = "labelled" if isinstance(result, Labelled) else "unchanged"
                    yield FolderImage(
                        path=result.ref.path,
                        name=result.ref.name,
                        status=status,
                        files=result.files,
                        classes=_shares(result.entry),
                    )
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(reporter.interruption())
        raise
    return reporter.counts.failed


def read_labelled(output: Path, images: list[FolderImage]) -> Iterator[FolderImage]:
    """Read labelled images from their output folder. Raise RecordError if its records are missing or damaged."""
    if all(image.status in ("planned", "failed") for image in images):  # there may be no folder
        yield from images
        return
    with open_run(output, ended=False, blocks=True) as run:
        for image in images:
            found = run.image(image.name) if image.error is None and image.name in run else None
            yield image if found is None else replace(image, files=found.files(), classes=_shares(found.entry))


def _shares(entry: Entry) -> dict[str, float]:
    """Return the share of the pixels of each class in an image."""
    facts = entry.mask
    return {name: facts.counts[each] / prod(facts.size) for each, name in facts.names.items()}


def label_spec(
    values: Mapping[str, Any], vocabulary: Vocabulary, new_classes: Sequence[str] = (), **more: Any
) -> RunSpec:
    """Return the settings of a labelling run, and check them.

    Args:
        values: The values of options. Without formats, the formats of the folder apply, or the default formats.
        vocabulary: The classes. With existing labels, theirs come first.
        new_classes: The classes to add to the existing labels; empty for the classes of `vocabulary`.
        more: Other fields of RunSpec.

    Raises:
        TipssegError: See `RunSpec.check`, or the existing labels cannot be read.
    """
    onto, formats = values["onto"], values["formats"]
    if onto is not None and not new_classes:
        vocabulary, new_classes = join_classes(onto, vocabulary)
    if formats == ():
        raise UsageError("no formats given", 'For example: ["png", "coco"].')
    more |= {"formats": formats or DEFAULT_FORMATS, "formats_given": formats is not None}
    return RunSpec.of(values, vocabulary=vocabulary, new_classes=tuple(new_classes), **more)


def find_to_label(folder: OutputFolder, choice: Choice, progress: Progress) -> Images:
    """Find the images of a run (see `find_images`).

    A new run labels in blocks if a plugin prefers that for its images, and the user chose nothing that excludes it. Note what the
    formats of other runs do not store.
    """
    spec = folder.info.spec
    note_vocabulary(spec.vocabulary, progress)
    images = find_images(spec, choice, progress, folder)
    refs, known = [ref for ref in images.known if isinstance(ref, ImageRef)], {*names("suffix")}
    able = [ref for ref in refs if suffix_of(ref.path)[1:] in known and is_plain(ref.path)]
    preferred = ((ref, load_plugin("suffix", suffix_of(ref.path)[1:])(ref.path)) for ref in able[:_LOOKED_AT])
    first, form = next(((ref, FORMATS[name]) for ref, name in preferred if name), (None, None))
    stored = any(isinstance(FORMATS[name], BlockFormat) for name in spec.formats)
    if first is None or stored or not isinstance(form, BlockMask):
        return images
    name, claim, mask, chosen = first.name, form.claim, form.name, ", ".join(spec.formats)
    if not spec.formats_given and folder.is_new and len(able) == len(refs):
        in_blocks = replace(spec, formats=(mask,))
        try:
            in_blocks.check_formats()
        except UsageError as error:
            progress.note("blocks_refused", name=name, claim=claim, message=error.message, hint=error.hint)
            return images
        progress.note("labelled_in_blocks", name=name, claim=claim, mask=mask, chosen=chosen)
        folder.change(replace(folder.info, spec=in_blocks))
        return images
    folder_word = shell_word(str(spec.output))
    progress.note("blocks_lost", name=name, claim=claim, mask=mask, chosen=chosen, folder=folder_word)
    return images


#: The number of images whose sizes are read.
_SAMPLE = 100


def list_images(folder: OutputFolder, images: Images, progress: Progress) -> Generator[FolderImage, None, None]:
    """Yield the images to label, print their paths, and note their numbers. Raise the errors that a run would raise.

    Args:
        folder: The folder of the run, from `peek_folder`.
        images: The images.
        progress: Prints the paths and notes.
    """
    spec, reasons = folder.info.spec, Counter[str]()
    unchanged = failed = edited = 0
    todo: list[ImageRef] = []
    if (refusal := folder.refusal) is not None:  # list the images anyway
        progress.note("stops", error=refusal.with_hint)
    moves = find_moves(folder, images)
    check_prune(folder, images, moves)
    note_renamed(moves.renamed, progress)
    if spec.prune is not None:
        progress.note("would_remove", images=pluralize(len(moves.gone), "image"), names=join_first(moves.gone, 20))
    followed = {ref.name for ref in moves.renamed.values()}
    for item in map(folder.triage, images.refs):
        if isinstance(item, ImageRef) and item.name in followed:
            unchanged += 1
            yield FolderImage(path=item.path, name=item.name, status="unchanged")
            continue
        match item:
            case Failed(ref, error):
                failed += 1
                progress.error(error)
                yield FolderImage(path=ref.path, name=ref.name, status="failed", error=error)
            case Unchanged(ref):
                unchanged += 1
                edited += item.edited
                yield FolderImage(path=ref.path, name=ref.name, status="unchanged")
            case ImageRef():
                todo.append(item)
                reasons[folder.reason(item)] += 1
                progress.path(item.path)
                yield FolderImage(path=item.path, name=item.name, status="planned")
    if is_locked(spec.output):
        progress.note("another_process", output=spec.output)
    others = {"unchanged": unchanged, "edited by hand": edited, "cannot be labelled": failed}
    counts = list_counts(len(todo), "to label", others)
    progress.note("planned", counts=counts, output=spec.output, classes=classes_text(spec.vocabulary))
    note_reasons(reasons, progress, "to label")
    if todo and spec.block_mask is None:
        _note_sizes(spec, todo, progress)


def _note_sizes(spec: RunSpec, todo: list[ImageRef], progress: Progress) -> None:
    """Note the sizes of the images, and the windows that the model sees, from a few images spread over the run."""
    sizes = list[tuple[int, int]]()
    for ref in todo[:: max(len(todo) // _SAMPLE, 1)][:_SAMPLE]:
        with suppress(ImageError, OSError, ValueError):  # a run reports it
            if not needs_hold(ref.path):
                sizes.append(spec.reader.size(ref.path))
    if not sizes:
        return
    ends = dict.fromkeys(f"{h} x {w}" for h, w in (min(sizes, key=prod), max(sizes, key=prod)))
    some = "" if len(sizes) == len(todo) else f" of {len(sizes)} of them"
    progress.note("sizes", some=some, ends=" to ".join(ends))
    source = find_model(spec.model)
    if not source.is_here:
        progress.note("no_windows", model=spec.model)
        return
    model = read_sizes(source.fetch(quiet=True, keep_stamps=spec.use_cache))

    def seen(options: LabelOptions) -> list[tuple[int, int, int]]:
        view = view_of(model, options)
        return [grid for size in sizes for grid in view.grids(size)]

    grids = seen(spec.options)
    more = ""
    if spec.options.scales != ONE_SCALE:
        times = sum(map(prod, grids)) / sum(map(prod, seen(replace(spec.options, scales=ONE_SCALE))))
        more = f", and {times:.1f} times as many patches as at scale 1"
    progress.note("windows", number=f"{sum(grid[0] for grid in grids) / len(sizes):.1f}", more=more)
