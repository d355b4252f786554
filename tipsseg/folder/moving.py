"""Finish the moves of masks to other names. They are staged in a folder, so that a killed command is finished by the next one.

moving/<number>/mask         a mask, with its new name inside
moving/<number>/<format>     a file of its image that only the model can write
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError, OutputError
from tipsseg.folder.files import Files, digest_of
from tipsseg.folder.labels import RunContext
from tipsseg.formats import FORMATS, file_path, is_model_only
from tipsseg.formats.blocks import digest_blocks
from tipsseg.formats.mask import MaskFacts, read_attached, read_facts_text
from tipsseg.types import ImageRef
from tipsseg.util.files import actual_name, temporary_path

#: The folder of masks on their way to other names, and the name of a mask there.
MOVING, MASK = "moving", "mask"


def finish_moves(files: Files, context: RunContext) -> None:
    """Put the files in the folder of moves where they belong. Files of others go to the trash. Raise OutputError if that fails."""
    top = files.output / MOVING
    if top.is_symlink():
        raise OutputError(top, "it is a symbolic link", "Remove the link, or choose another output folder.")
    if not top.is_dir():
        return
    moves = _moves(context)
    staged = [path for place, _ in moves for path in sorted(place.iterdir()) if path.name in {MASK, *FORMATS}]
    copies = {digest_of(path) for path in staged}
    labels, names = {facts.labels for _, facts in moves}, {facts.image for _, facts in moves}

    def may_go(path: Path) -> bool:
        facts = _facts_of(path, context)
        return digest_of(path) in copies or (facts is not None and (facts.labels in labels or not facts.by_person))

    for _, facts in moves:
        old = facts.formerly[-1]
        if old not in names:  # else the mask of another image comes there
            for path in (_mask_path(context, old), *model_files(context, old).values()):
                files.remove(files.place(path), (), may_go)
    for place, facts in moves:
        targets = {MASK: _mask_path(context, facts.image), **model_files(context, facts.image)}
        for path in staged:
            if path.parent == place and path.name in targets:
                file = files.stage(path.name, targets[path.name], partial(shutil.copyfile, path), synced=True)
                files.put(file, (), may_go)
    for path in sorted(top.rglob("*")):
        if path not in staged and (path.is_symlink() or not path.is_dir()):
            files.remove(files.place(path))
    done = temporary_path(top)
    with suppress(FileNotFoundError):  # only files of others were there
        top.rename(done)  # at once: of moves that are finished, none is to be made again
    shutil.rmtree(done, ignore_errors=True)


def moving_images(context: RunContext) -> set[str]:
    """Return the names, old and new, of the images whose files are in the folder of moves."""
    return {name for _, facts in _moves(context) for name in (facts.image, facts.formerly[-1])}


def _moves(context: RunContext) -> list[tuple[Path, MaskFacts]]:
    """Return the folders of moves, each with the facts of its mask."""
    found = [(path.parent, _facts_of(path, context)) for path in sorted((context.output / MOVING).glob(f"*/{MASK}"))]
    return [(place, facts) for place, facts in found if facts is not None and facts.formerly]


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
        if (mask := context.block_mask) is not None:
            facts = read_facts_text(mask.read_facts(path))
            return facts if facts.labels == digest_blocks(mask.read_blocks(path, context), facts.size) else None
        return read_attached(path.read_bytes())
    return None
