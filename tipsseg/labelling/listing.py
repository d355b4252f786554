"""`tipsseg label --dry-run`: list the images of a run, with their number, sizes and windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from math import prod

from tipsseg.backbones.registry import read_sizes
from tipsseg.errors import ImageError
from tipsseg.folder.find import Images
from tipsseg.folder.folder import OutputFolder
from tipsseg.folder.lock import is_locked
from tipsseg.folder.moves import find_moves
from tipsseg.folder.notes import classes_text, list_counts, note_reasons, note_renamed
from tipsseg.folder.outcome import FolderImage
from tipsseg.folder.results import Unchanged
from tipsseg.folder.spec import RunSpec
from tipsseg.images.access import needs_hold
from tipsseg.labelling.images import check_prune
from tipsseg.labelling.view import view_of
from tipsseg.options import ONE_SCALE
from tipsseg.options.records import LabelOptions
from tipsseg.say import Progress
from tipsseg.types import Failed, ImageRef
from tipsseg.util.text import join_first, pluralize
from tipsseg.weights.sources import find_model

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
