"""Dry runs of `tipsseg label` and `tipsseg encode`: list the images of a run, with their number, sizes and windows."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from math import prod
from pathlib import Path

from tipsseg.backbones.registry import read_sizes
from tipsseg.commands.inputs import Images
from tipsseg.commands.notes import list_counts, note_reasons, readable_size
from tipsseg.commands.progress import Progress
from tipsseg.errors import ImageError, OutputError
from tipsseg.features.file import feature_bytes
from tipsseg.features.folder import feature_path, read_store
from tipsseg.images.access import identify, needs_hold
from tipsseg.images.decoding import upright_size
from tipsseg.labelling.view import make_view, short_sides
from tipsseg.options import FEATURE_DTYPES, ONE_SCALE, LabelOptions, choose
from tipsseg.options.fields import text_of
from tipsseg.run.folder import OutputFolder
from tipsseg.run.lock import is_locked
from tipsseg.run.question import merged_info, refuse_other_question, with_classes_of
from tipsseg.run.record import stored_run
from tipsseg.run.results import Unchanged
from tipsseg.run.spec import RunInfo, RunSpec
from tipsseg.run.state import State
from tipsseg.types import Failed, ImageRef
from tipsseg.util.files import is_folder
from tipsseg.weights.sources import find_model

#: The number of images whose sizes are read.
_SAMPLE = 100


def list_images(info: RunInfo, images: Images, progress: Progress) -> int:
    """Print the images to label, and note their numbers. Raise the errors that a run would raise.

    Args:
        info: The run, from `plan_run`.
        images: The images.
        progress: Prints the paths and notes.

    Returns:
        The number of images that cannot be labelled.
    """
    spec, reasons = info.spec, Counter[str]()
    unchanged = failed = edited = 0
    todo: list[ImageRef] = []
    with closing(State(spec.folder)) as state:
        before = stored_run(state)
        if before is not None and not spec.overwrite:
            info = with_classes_of(before, info)
            try:
                if len(state):
                    refuse_other_question(before, info)
            except OutputError as refusal:  # list the images anyway
                progress.note(f"The run would stop: {refusal.message}" + (f" ({refusal.hint})" if refusal.hint else ""))
            info = merged_info(info, before)
        folder = OutputFolder(info, state, before)
        folder.starting_over = before is not None and spec.overwrite
        for item in map(folder.triage, images.refs):
            match item:
                case Failed(_, error):
                    failed += 1
                    progress.error(error)
                case Unchanged():
                    unchanged += 1
                    edited += item.edited
                case ImageRef():
                    todo.append(item)
                    reasons[folder.reason(item)] += 1
                    progress.path(item.path)
    if is_locked(spec.folder):
        progress.note(f"Another tipsseg process is writing to {spec.folder}.")
    others = {"unchanged": unchanged, "edited by hand": edited, "cannot be labelled": failed}
    progress.note(f"{list_counts(len(todo), 'to label', others)}, into {spec.folder}. Nothing was written.")
    note_reasons(reasons, progress, "to label")
    if todo and not spec.is_raster:
        _note_sizes(info, todo, progress)
    return failed


def _note_sizes(info: RunInfo, todo: list[ImageRef], progress: Progress) -> None:
    """Note the sizes of the images, and the windows that the model sees, from a few images spread over the run."""
    spec, sizes = info.spec, list[tuple[int, int]]()
    for ref in todo[:: max(len(todo) // _SAMPLE, 1)][:_SAMPLE]:
        with suppress(ImageError, OSError, ValueError):  # a run reports it
            if not needs_hold(ref.path):
                sizes.append(upright_size(ref.path, spec.max_pixels))
    if not sizes:
        return
    ends = dict.fromkeys(f"{h} x {w}" for h, w in (min(sizes, key=prod), max(sizes, key=prod)))
    some = "" if len(sizes) == len(todo) else f" of {len(sizes)} of them"
    progress.note(f"Sizes{some}: {' to '.join(ends)} pixels (height x width).")
    source = find_model(spec.model)
    if not source.is_here:
        progress.note(f"For the number of windows, run: tipsseg weights download {spec.model}")
        return
    model = read_sizes(source.fetch(quiet=True, keep_stamps=spec.use_cache))

    def seen(options: LabelOptions) -> list[tuple[int, int, int]]:
        view = make_view(model.native_size, model.patch_size, options)
        return [grid for size in sizes for grid in view.grids(size)]

    grids = seen(spec.options)
    text = f"The model sees {sum(grid[0] for grid in grids) / len(sizes):.1f} windows per image"
    if spec.options.scales != ONE_SCALE:
        times = sum(map(prod, grids)) / sum(map(prod, seen(replace(spec.options, scales=ONE_SCALE))))
        text += f", and {times:.1f} times as many patches as at scale 1"
    progress.note(f"{text}.")


def estimate_store(info: RunInfo, images: Images, progress: Progress) -> int:
    """Print the images to encode, and note the size of their features. Write nothing.

    Args:
        info: The run, from `plan_run` for an `encode_spec`.
        images: The images.
        progress: Prints the paths and notes.

    Returns:
        The number of images that cannot be encoded.
    """
    spec, store = info.spec, read_store(info.spec.output)
    dtype = choose(spec.feature_dtype, FEATURE_DTYPES, "feature dtype")
    source = find_model(spec.model)
    model = view = None
    if source.is_here:
        model = read_sizes(source.fetch(quiet=True, keep_stamps=spec.use_cache))
        view = make_view(model.native_size, model.patch_size, spec.options)
    todo = unchanged = failed = windows = total = 0
    for ref in images.refs:
        if isinstance(ref, Failed):
            failed += 1
            progress.error(ref.error)
            continue
        try:
            sides = set() if store is None else _stored_sides(spec, store.recipe.short_side, ref.path)
            if len(sides) == len(spec.options.scales):
                unchanged += 1
                continue
            size = upright_size(ref.path, spec.max_pixels)
        except (ImageError, OSError, ValueError) as error:
            failed += 1
            progress.error(error if isinstance(error, ImageError) else ImageError(ref.path, str(error)))
            continue
        todo += 1
        if model is not None and view is not None:
            grids = [grid for side, grid in zip(view.short_sides, view.grids(size), strict=True) if side not in sides]
            windows += sum(grid[0] for grid in grids)
            total += sum(feature_bytes((*grid, model.embed_dim), model.class_tokens, dtype) for grid in grids)
        progress.path(ref.path)
    totals = list_counts(todo, "to encode", {"unchanged": unchanged, "cannot be encoded": failed})
    progress.note(f"{totals}, into {spec.output}. Nothing was written.")
    if todo and model is None:
        progress.note(f"No estimate of disk space without the weights. Run: tipsseg weights download {spec.model}")
    elif todo:
        place = next(path for path in (spec.output.absolute(), *spec.output.absolute().parents) if is_folder(path))
        progress.note(
            f"Features in {dtype} take {readable_size(total / todo)} per image, {readable_size(total)} in total; "
            f"{readable_size(shutil.disk_usage(place).free)} free on the disk."
        )
        if spec.options.scales != ONE_SCALE:
            progress.note(
                f"At scales {text_of(spec.options.scales)}: {windows / todo:.1f} windows per image to encode."
            )
    return failed


def _stored_sides(spec: RunSpec, own: int, path: Path) -> set[int]:
    """Return the run's short sides at which the store has features of an image; `own` is the short side of scale 1."""
    sha256 = identify(path, any_size=True)[1]
    paths = {
        side: feature_path(spec.output, sha256, None if side == own else side)
        for side in short_sides(own, spec.options.scales)
    }
    return {side for side, path in paths.items() if os.path.lexists(path)}
