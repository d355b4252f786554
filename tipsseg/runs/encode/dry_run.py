"""A dry run of `tipsseg encode`: which images it would encode, and how much disk their features would take. No torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tipsseg.backbones.tipsv2.config import read_config
from tipsseg.errors import ImageError
from tipsseg.features.file import feature_bytes
from tipsseg.features.folder import feature_path
from tipsseg.images.decoding import upright_size
from tipsseg.labelling.windows import make_plan, stretched_size
from tipsseg.runs.encode.spec import EncodePlan, EncodeSpec
from tipsseg.runs.image_list import Images
from tipsseg.runs.progress import Progress
from tipsseg.store.results import Failed
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
    cost = _cost_of(spec, plan, source.fetch(quiet=True, keep_stamps=spec.use_cache)) if source.is_here else None
    todo = unchanged = failed = total = 0
    for each in images.refs:
        if isinstance(each, Failed):
            failed += 1
            progress.error(each.error)
            continue
        try:
            if plan.there is not None and os.path.lexists(feature_path(spec.output, content_digest(each.path))):
                unchanged += 1
                continue
            size = upright_size(each.path, spec.max_pixels)
        except (ImageError, OSError, ValueError) as error:
            failed += 1
            progress.error(error if isinstance(error, ImageError) else ImageError(each.path, str(error)))
            continue
        todo += 1
        total += 0 if cost is None else cost(size)
        progress.path(each.path)
    parts = [f"{counted(todo, 'image')} to encode"]
    parts += [f"{unchanged} unchanged"] if unchanged else []
    parts += [f"{failed} cannot be encoded"] if failed else []
    progress.note(f"{', '.join(parts)}, into {spec.output}. Nothing was written.")
    if todo and cost is None:
        progress.note(f"No estimate of disk: get the weights first, with tipsseg weights download {spec.model}")
    elif todo:
        progress.note(
            f"In {plan.feature_dtype} features take {_readable(total / todo)} per image, {_readable(total)} in all; "
            f"{_readable(_free(spec.output))} are free there."
        )
    return failed


def _cost_of(spec: EncodeSpec, plan: EncodePlan, folder: Path) -> Callable[[tuple[int, int]], int]:
    """What gives the bytes of the features of an image of a size (height, width), for the model in a folder."""
    config = read_config(folder / "config.json")
    vision, dim = config.vision, config.text.hidden_size
    patch = vision.patch_size
    short_side = spec.options.short_side or vision.image_size

    def cost(size: tuple[int, int]) -> int:
        windows = make_plan(size, vision.image_size, short_side, patch, spec.options.mode)
        seen = stretched_size(windows.size, patch) if windows.whole else (windows.side, windows.side)
        shape = max(len(windows.corners), 1), seen[0] // patch, seen[1] // patch, dim
        return feature_bytes(shape, vision.num_prefix_tokens, plan.feature_dtype)

    return cost


def _free(folder: Path) -> int:
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if is_folder(each))
    return shutil.disk_usage(place).free


def _readable(size: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1e3:,.1f} kB"
