"""A dry run: list the images to label, and estimate time and disk space by labelling a few into a temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from tipsseg.backbones.tipsv2.config import read_config
from tipsseg.errors import OutputError
from tipsseg.features.folder import STORE_FILE, list_files, list_image_files
from tipsseg.images.sources.access import identify
from tipsseg.labelling.view import make_view
from tipsseg.options import ONE_SCALE, LabelOptions
from tipsseg.options.fields import text_of
from tipsseg.runs.common.image_list import Images
from tipsseg.runs.common.notes import list_counts, readable_size
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.engine.engine import LocalEngine
from tipsseg.runs.label.run import as_items, refuse_unfit
from tipsseg.store.lock import is_locked
from tipsseg.store.results import Failed, Labelled, Unchanged, image_paths
from tipsseg.store.resuming.refusals import open_resume, refuse_in_the_way, refuse_other_ids
from tipsseg.store.run_record import run_context
from tipsseg.store.spec import RunInfo
from tipsseg.store.state import State
from tipsseg.types import ImageRef
from tipsseg.util.files import json_bytes
from tipsseg.util.printable import format_duration
from tipsseg.weights.sources import find_model

#: The number of images to label for the estimate, spread over the run; the first only warms up.
_SAMPLE = 6


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of an image.

    Attributes:
        start: Seconds before the first image.
        seconds: Seconds per image.
        size: Bytes written per image.
        sample: The number of images that were labelled for the estimate.
        sizes: (height, width) of these images in pixels.
    """

    start: float
    seconds: float
    size: float
    sample: int
    sizes: tuple[tuple[int, int], ...]


def dry_run(info: RunInfo, images: Images, progress: Progress, *, measure: bool) -> int:
    """Print the images to label, and note their numbers. Raise the errors that a run would raise.

    Args:
        info: The run, from `plan_run`.
        images: The images.
        progress: Prints the paths and notes.
        measure: Estimate time and disk space by labelling a few images.

    Returns:
        The number of images that cannot be labelled.
    """
    spec, context = info.spec, run_context(info)
    unchanged = failed = replaced = edited = 0
    todo: list[ImageRef] = []
    with closing(State(context.state)) as state:
        resume = open_resume(info, context, state)
        context = context.with_files(resume.files)
        try:
            if not spec.overwrite:
                refuse_other_ids(resume, images.known)
                images = refuse_unfit(resume, images)
            refuse_in_the_way(resume, images.known)
        except OutputError as refusal:  # list the images anyway
            progress.note(f"The run would stop: {refusal.message}" + (f" ({refusal.hint})" if refusal.hint else ""))
        for item in images.refs if spec.overwrite else as_items(images.refs, resume):
            match item:
                case Failed(_, error):
                    failed += 1
                    progress.error(error)
                case Unchanged():
                    unchanged += 1
                    edited += bool(item.edited)
                case ImageRef():
                    todo.append(item)
                    replaced += any(path.exists() for path in image_paths(context, item, spec.formats).values())
                    progress.path(item.path)
    if is_locked(spec.state):
        progress.note(f"Another tipsseg process is writing to {spec.state}.")
    others = {
        "unchanged": unchanged,
        "edited by hand": edited,
        "cannot be labelled": failed,
        "with files to replace": replaced,
    }
    progress.note(f"{list_counts(len(todo), 'to label', others)}, into {spec.output}. Nothing was written.")
    if todo and measure:
        progress.note(_cost(info, todo))
    return failed


def _cost(info: RunInfo, todo: list[ImageRef]) -> str:
    """Return a sentence on time and disk space."""
    model = info.spec.model
    if not find_model(model).is_here:
        return f"No estimate of time and disk space without the weights. Run: tipsseg weights download {model}"
    cost = estimate(info, todo)
    if cost is None:
        return "No estimate of time and disk space: labelling a few images failed."
    seconds, size = round(cost.start + cost.seconds * len(todo)), cost.size * len(todo)
    text = f"About {format_duration(seconds)} and {readable_size(size)} on this machine, estimated from {cost.sample} of them."
    return text if info.spec.options.scales == ONE_SCALE else f"{text} {_windows(info, cost.sizes)}"


def _windows(info: RunInfo, sizes: Sequence[tuple[int, int]]) -> str:
    """Return a sentence on the cost of several scales."""
    spec, options = info.spec, info.spec.options
    vision = read_config(find_model(spec.model).fetch(quiet=True, keep_stamps=spec.use_cache) / "config.json").vision

    def seen(options: LabelOptions) -> list[tuple[int, int, int]]:
        view = make_view(vision.image_size, vision.patch_size, options)
        return [grid for size in sizes for grid in view.grids(size)]

    grids = seen(options)
    times = sum(map(prod, grids)) / sum(map(prod, seen(replace(options, scales=ONE_SCALE))))
    return (
        f"At scales {text_of(options.scales)} the model sees {sum(grid[0] for grid in grids) / len(sizes):.1f} windows per "
        f"image, and {times:.1f} times as many patches as at scale 1."
    )


def estimate(info: RunInfo, todo: list[ImageRef]) -> Estimate | None:
    """Estimate the cost of an image by labelling a few into a temporary folder; None if all fail."""
    step = max(1, len(todo) // _SAMPLE)
    refs = todo[::step][:_SAMPLE]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tipsseg-") as folder:
        features = (
            None if info.spec.features is None else _trial_store(info.spec.features, refs, Path(folder, "features"))
        )
        known = {} if features is None else _sizes(features)
        trial = replace(info, spec=replace(info.spec, output=Path(folder), shard=None, features=features))
        engine = LocalEngine(trial, quiet=True)
        engine.start(run_context(trial), refs)
        start = time.monotonic() - began
        times: list[float] = []
        size = 0
        sizes: list[tuple[int, int]] = []
        with closing(engine.results(refs)) as results:
            for result in results:
                times.append(time.monotonic())
                if isinstance(result, Labelled):
                    sizes.append(result.entry.numbers.size)
                    size += len(json_bytes(result.entry.record()))
                    size += sum(len(row) for rows in result.rows.values() for row in rows)
                    size += sum(file.size for file in result.entry.written.values())
                else:
                    times.pop()
        if features is not None:
            size += sum(added for path, added in _sizes(features).items() if path not in known)
    if not times:
        return None
    seconds = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else times[0] - began - start
    return Estimate(start, seconds, size / len(times), len(times), tuple(sizes))


def _trial_store(store: Path, refs: Sequence[ImageRef], folder: Path) -> Path:
    """Copy the features of these images into a temporary store, so that the real store does not change."""
    if os.path.lexists(store / STORE_FILE):
        folder.mkdir()
        shutil.copyfile(store / STORE_FILE, folder / STORE_FILE)
    for ref in refs:
        with suppress(OSError, ValueError):  # an unreadable image, or an image without features
            for file in list_image_files(store, identify(ref.path, any_size=True)[1]):
                target = folder / file.relative_to(store)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    return folder


def _sizes(store: Path) -> dict[Path, int]:
    """Return the size of every feature file in bytes."""
    return {path: path.stat().st_size for path in list_files(store)}
