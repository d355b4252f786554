"""A dry run of `tipsseg encode`: which images it would encode, and how much disk their features would take. No torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tipsseg.backbones.tipsv2.config import read_config
from tipsseg.errors import ImageError
from tipsseg.features.file import feature_bytes
from tipsseg.features.folder import feature_path, read_store
from tipsseg.images.decoding import upright_size
from tipsseg.labelling.view import make_view
from tipsseg.labelling.windows import short_sides
from tipsseg.options import FEATURE_DTYPES, ONE_SCALE, choose
from tipsseg.options.fields import text_of
from tipsseg.runs.common.image_list import Images
from tipsseg.runs.common.progress import Progress
from tipsseg.store.results import Failed
from tipsseg.store.spec import RunInfo, RunSpec
from tipsseg.util.files import is_folder
from tipsseg.util.fingerprint import content_digest
from tipsseg.util.printable import counted
from tipsseg.weights.sources import find_model


def dry_run(info: RunInfo, images: Images, progress: Progress) -> int:
    """Print the images that would be encoded, and note what their features would take. Nothing is written.

    Args:
        info: The run, as `plan_run` plans an `encode_spec`.
        images: The images. Of those to encode the size is read, of the others the hash alone.
        progress: Says it all.

    Returns:
        How many images cannot be encoded.
    """
    spec, there = info.spec, read_store(info.spec.output)
    kept = choose(spec.feature_dtype, FEATURE_DTYPES, "dtype of features")
    source = find_model(spec.model)
    config = view = None
    if source.is_here:
        config = read_config(source.fetch(quiet=True, keep_stamps=spec.use_cache) / "config.json")
        view = make_view(config.vision.image_size, config.vision.patch_size, spec.options)
    todo = unchanged = failed = windows = total = 0
    for each in images.refs:
        if isinstance(each, Failed):
            failed += 1
            progress.error(each.error)
            continue
        try:
            sides = set() if there is None else _sides_kept(spec, there.recipe.short_side, each.path)
            if len(sides) == len(spec.options.scales):
                unchanged += 1
                continue
            size = upright_size(each.path, spec.max_pixels)
        except (ImageError, OSError, ValueError) as error:
            failed += 1
            progress.error(error if isinstance(error, ImageError) else ImageError(each.path, str(error)))
            continue
        todo += 1
        if config is not None and view is not None:
            seen = zip(view.short_sides, view.grids(size), strict=True)
            grids = [grid for side, grid in seen if side not in sides]
            windows += sum(grid[0] for grid in grids)
            dim, tokens = config.text.hidden_size, config.vision.num_prefix_tokens
            total += sum(feature_bytes((*grid, dim), tokens, kept) for grid in grids)
        progress.path(each.path)
    parts = [f"{counted(todo, 'image')} to encode"]
    parts += [f"{unchanged} unchanged"] if unchanged else []
    parts += [f"{failed} cannot be encoded"] if failed else []
    progress.note(f"{', '.join(parts)}, into {spec.output}. Nothing was written.")
    if todo and config is None:
        progress.note(f"No estimate of disk: get the weights first, with tipsseg weights download {spec.model}")
    elif todo:
        progress.note(
            f"In {kept} features take {_readable(total / todo)} per image, {_readable(total)} in all; "
            f"{_readable(_free(spec.output))} are free there."
        )
        if spec.options.scales != ONE_SCALE:
            progress.note(
                f"At scales {text_of(spec.options.scales)}: {windows / todo:.1f} windows per image to encode."
            )
    return failed


def _sides_kept(spec: RunSpec, own: int, path: Path) -> set[int]:
    """Return the short sides, of those that are asked for, at which a store has an image; its `own` is that of scale 1."""
    sha256 = content_digest(path)
    paths = {
        side: feature_path(spec.output, sha256, None if side == own else side)
        for side in short_sides(own, spec.options.scales)
    }
    return {side for side, path in paths.items() if os.path.lexists(path)}


def _free(folder: Path) -> int:
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if is_folder(each))
    return shutil.disk_usage(place).free


def _readable(size: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e3:,.1f} kB"
