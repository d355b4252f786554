"""A dry run of `tipsseg encode`: which images it would encode, and how much disk their features would take. No torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tipsseg.backbones.tipsv2.config import ModelConfig, read_config
from tipsseg.errors import ImageError
from tipsseg.features.file import feature_bytes
from tipsseg.features.folder import feature_path
from tipsseg.images.decoding import upright_size
from tipsseg.labelling.windows import make_plans, patch_grid, short_sides
from tipsseg.options import ONE_SCALE
from tipsseg.options.fields import text_of
from tipsseg.runs.common.image_list import Images
from tipsseg.runs.common.progress import Progress
from tipsseg.runs.encode.spec import EncodePlan, EncodeSpec
from tipsseg.store.results import Failed
from tipsseg.types import WindowPlan
from tipsseg.util.files import is_folder
from tipsseg.util.fingerprint import content_digest
from tipsseg.util.printable import counted
from tipsseg.weights.sources import find_model


def dry_run(spec: EncodeSpec, plan: EncodePlan, images: Images, progress: Progress) -> int:
    """Print the images that would be encoded, and note what their features would take. Nothing is written.

    Args:
        spec: What is asked for.
        plan: As `plan_encoding` gives it.
        images: The images. Of those to encode the size is read, of the others the hash alone.
        progress: Says it all.

    Returns:
        How many images cannot be encoded.
    """
    source = find_model(spec.model)
    config = None
    if source.is_here:
        config = read_config(source.fetch(quiet=True, keep_stamps=spec.use_cache) / "config.json")
    todo = unchanged = failed = windows = total = 0
    for each in images.refs:
        if isinstance(each, Failed):
            failed += 1
            progress.error(each.error)
            continue
        try:
            there = _sides_there(spec, plan, each.path)
            if len(there) == len(spec.options.scales):
                unchanged += 1
                continue
            size = upright_size(each.path, spec.max_pixels)
        except (ImageError, OSError, ValueError) as error:
            failed += 1
            progress.error(error if isinstance(error, ImageError) else ImageError(each.path, str(error)))
            continue
        todo += 1
        if config is not None:
            lacking = [seen for seen in _plans(spec, config, size) if seen.short_side not in there]
            windows += sum(max(len(seen.corners), 1) for seen in lacking)
            total += sum(_bytes(config, seen, plan) for seen in lacking)
        progress.path(each.path)
    parts = [f"{counted(todo, 'image')} to encode"]
    parts += [f"{unchanged} unchanged"] if unchanged else []
    parts += [f"{failed} cannot be encoded"] if failed else []
    progress.note(f"{', '.join(parts)}, into {spec.output}. Nothing was written.")
    if todo and config is None:
        progress.note(f"No estimate of disk: get the weights first, with tipsseg weights download {spec.model}")
    elif todo:
        progress.note(
            f"In {plan.feature_dtype} features take {_readable(total / todo)} per image, {_readable(total)} in all; "
            f"{_readable(_free(spec.output))} are free there."
        )
        if spec.options.scales != ONE_SCALE:
            progress.note(
                f"At scales {text_of(spec.options.scales)}: {windows / todo:.1f} windows per image to encode."
            )
    return failed


def _sides_there(spec: EncodeSpec, plan: EncodePlan, path: Path) -> set[int]:
    """The short sides, of those that are asked for, at which the store has features of an image."""
    if plan.there is None:
        return set()
    sha256 = content_digest(path)
    own = plan.there.recipe.short_side
    paths = {
        side: feature_path(spec.output, sha256, None if side == own else side)
        for side in short_sides(own, spec.options.scales)
    }
    return {side for side, path in paths.items() if os.path.lexists(path)}


def _plans(spec: EncodeSpec, config: ModelConfig, size: tuple[int, int]) -> tuple[WindowPlan, ...]:
    """How the model sees an image of a size (height, width) at each scale."""
    native = config.vision.image_size
    return make_plans(size, native, spec.options.short_side or native, config.vision.patch_size, spec.options)


def _bytes(config: ModelConfig, seen: WindowPlan, plan: EncodePlan) -> int:
    """Bytes of the features of an image at one scale."""
    vision = config.vision
    shape = *patch_grid(seen, vision.patch_size), config.text.hidden_size
    return feature_bytes(shape, vision.num_prefix_tokens, plan.feature_dtype)


def _free(folder: Path) -> int:
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if is_folder(each))
    return shutil.disk_usage(place).free


def _readable(size: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e3:,.1f} kB"
