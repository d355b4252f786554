"""Finish the moves of masks to other names. They are staged in a folder, so that a killed command is finished by the next one.

moving/<number>/mask         a mask, with its new name inside
moving/<number>/<format>     a file of its image that only the model can write
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError
from tipsseg.folder.mask import MaskFacts, read_attached, read_facts
from tipsseg.formats import FORMATS, file_path, is_model_only
from tipsseg.formats.raster import digest_mask, read_facts_tag
from tipsseg.run.files import Files, digest_of
from tipsseg.run.labels import GEOTIFF, RunContext
from tipsseg.types import ImageRef
from tipsseg.util.files import actual_name
from tipsseg.util.json import parse

#: The folder of masks on their way to other names, and the name of a mask there.
MOVING, MASK = "moving", "mask"


def finish_moves(files: Files, context: RunContext) -> None:
    """Put the files in the folder of moves where they belong. Raise OutputError if that fails."""
    top = files.output / MOVING
    if not top.is_dir():
        return
    moves = [
        (place, facts) for place in sorted(top.iterdir()) if (facts := _facts_of(place / MASK, context)) is not None
    ]
    copies = {digest_of(path) for place, _ in moves for path in place.iterdir()}
    labels, names = {facts.labels for _, facts in moves}, {facts.image for _, facts in moves}

    def is_staged(path: Path) -> bool:
        facts = _facts_of(path, context)
        return digest_of(path) in copies or (facts is not None and facts.labels in labels)

    for _, facts in moves:
        old = facts.formerly[-1]
        if old not in names:  # else the mask of another image comes there
            for path in (_mask_path(context, old), *model_files(context, old).values()):
                files.remove(files.place(path), (), is_staged)
    for place, facts in moves:
        targets = {MASK: _mask_path(context, facts.image), **model_files(context, facts.image)}
        for path in sorted(place.iterdir()):
            if path.name in targets:
                file = files.stage(path.name, targets[path.name], partial(shutil.copyfile, path), synced=True)
                files.put(file, (), is_staged)
    shutil.rmtree(top)


def moving_images(context: RunContext) -> set[str]:
    """Return the names, old and new, of the images whose files are in the folder of moves."""
    found = [_facts_of(path, context) for path in (context.output / MOVING).glob(f"*/{MASK}")]
    return {name for facts in found if facts is not None for name in (facts.image, facts.formerly[-1])}


def model_files(context: RunContext, image: str) -> dict[str, Path]:
    """Return the files of an image that only the model can write, by format."""
    paths = {
        name: file_path(name, PurePosixPath(actual_name(image)), context.files)
        for name in FORMATS
        if is_model_only(name)
    }
    return {name: context.output / path for name, path in paths.items() if path is not None}


def _mask_path(context: RunContext, image: str) -> Path:
    return context.mask_path(ImageRef(Path(), PurePosixPath(actual_name(image))))


def _facts_of(path: Path, context: RunContext) -> MaskFacts | None:
    """Return the facts of an intact mask; None for another file."""
    with suppress(OSError, ValueError, ImageError):
        if context.mask_format == GEOTIFF:
            facts = read_facts(parse(read_facts_tag(path).encode()))
            return facts if facts.labels == digest_mask(path, context) else None
        return read_attached(path.read_bytes())
    return None
