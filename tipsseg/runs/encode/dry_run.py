"""A dry run of `tipsseg encode`: list the images to encode, and compute the disk space of their features, without torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tipsseg.backbones.registry import read_sizes
from tipsseg.errors import ImageError
from tipsseg.features.file import feature_bytes
from tipsseg.features.folder import feature_path, read_store
from tipsseg.images.access import identify
from tipsseg.images.decoding import upright_size
from tipsseg.labelling.view import make_view, short_sides
from tipsseg.options import FEATURE_DTYPES, ONE_SCALE, choose
from tipsseg.options.fields import text_of
from tipsseg.run.spec import RunInfo, RunSpec
from tipsseg.runs.common.inputs import Images
from tipsseg.runs.common.notes import list_counts, readable_size
from tipsseg.runs.common.progress import Progress
from tipsseg.types import Failed
from tipsseg.util.files import is_folder
from tipsseg.weights.sources import find_model


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
        progress.note(
            f"Features in {dtype} take {readable_size(total / todo)} per image, {readable_size(total)} in total; "
            f"{readable_size(_free(spec.output))} free on the disk."
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


def _free(folder: Path) -> int:
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if is_folder(path))
    return shutil.disk_usage(place).free
