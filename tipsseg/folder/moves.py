"""Let masks follow pictures that have other names now.

A picture is its pixels: one whose name is new, or which differs from the picture that was labelled under its name, is looked for
among the pictures that are gone or differ, by its bytes and then by its pixels. All moves are staged in a folder before the first
mask gets another name, so that chains and exchanges of names work, and a killed command is finished by the next one.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.folder.entry import SEALED, Entry
from tipsseg.folder.find import Images
from tipsseg.folder.folder import OutputFolder
from tipsseg.folder.labels import is_same_picture
from tipsseg.folder.moving import MASK, MOVING, model_files
from tipsseg.formats.mask import attach, facts_text, seal
from tipsseg.images.access import below, identify, is_gone, matches
from tipsseg.images.upright import pixel_digest
from tipsseg.types import ImageRef
from tipsseg.util.files import actual_path, is_same, output_error, temporary_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """The recorded images that a run does not find where they were.

    Attributes:
        recorded: The number of images of the run that the folder records.
        renamed: The pictures with another name by now, by the recorded name.
        alike: Pictures of which several have the same pixels, so that no mask follows them.
        gone: The images without a picture that nobody corrected.
        corrected: The images without a picture that a person corrected.
        replaced: Corrected images without a picture whose name another picture has by now: the mask of that one comes there.
    """

    recorded: int = 0
    renamed: dict[str, ImageRef] = field(default_factory=dict)
    alike: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()


def find_moves(folder: OutputFolder, images: Images) -> Moves:
    """Compare the images of a run with those that its folder records. Streams and shards have no moves."""
    refs = {item.name: item for item in images.known if isinstance(item, ImageRef)}
    if not len(folder) or folder.info.spec.shard is not None or not refs:
        return Moves()
    known = {*folder.cache.names()}
    new = [ref for name, ref in refs.items() if name not in known]
    # On a file system that ignores case, the old name of a picture still finds it.
    folded = {ref.name.casefold(): ref.path for ref in new}
    elsewhere, changed = list[Entry](), list[Entry]()
    for name, path, stamp in folder.cache.pictures():
        if (ref := refs.get(name)) is None:
            if _is_missing(name, path, images, folded.get(name.casefold())):
                elsewhere.append(folder.image(name).entry)
        elif not matches(stamp, ref.path) and not is_same_picture(
            entry := folder.image(name).entry, ref.path, folder.reader
        ):
            changed.append(entry)
    renamed, alike = _pair(folder, [*elsewhere, *changed], [*new, *(refs[entry.image] for entry in changed)])
    # A mask that was renamed with its picture is where it belongs.
    home = {name: folder.files.place(folder.context.mask_path(ref)) for name, ref in renamed.items()}
    for name, place in home.items():
        if isinstance(stray := folder.strays.get(place), Entry) and stray.image == name:
            del renamed[name]
    left = [entry for entry in elsewhere if entry.image not in renamed and images.whole]
    return Moves(
        recorded=len({*refs} & known | {ref.name for ref in renamed.values()}),
        renamed=renamed,
        alike=alike,
        gone=tuple(sorted(entry.image for entry in left if not entry.corrected)),
        corrected=tuple(sorted(entry.image for entry in left if entry.corrected)),
        replaced=tuple(
            sorted(
                entry.image
                for entry in changed
                if entry.corrected
                and entry.image not in renamed
                and entry.image in {ref.name for ref in renamed.values()}
            )
        ),
    )


def _is_missing(name: str, address: str, images: Images, twin: Path | None) -> bool:
    """Return True if the picture of an image is not where it was; `twin` is a new one with the same letters."""
    path = actual_path(Path(), address)
    here = path if address and path.is_relative_to(images.root) else below(images.root, name)
    path = path if address else here
    return (is_gone(path) and is_gone(here)) or (twin is not None and is_same(here, twin))


def _pair(
    folder: OutputFolder, entries: list[Entry], pictures: list[ImageRef]
) -> tuple[dict[str, ImageRef], tuple[str, ...]]:
    """Return the pictures by the recorded name whose labels they have, and those that several fit."""
    found, alike = dict[str, ImageRef](), set[str]()
    sizes = {entry.mask.picture.bytes for entry in entries}

    def by_bytes(ref: ImageRef) -> str:
        with suppress(OSError, ValueError):  # reported when the image is read
            fingerprint, sha256 = identify(ref.path)
            return sha256 if fingerprint.size in sizes else ""
        return ""

    def by_pixels(ref: ImageRef) -> str:
        with suppress(ImageError):
            return pixel_digest(folder.reader.upright(ref.path))
        return ""

    for attribute, digest_by in (("sha256", by_bytes), ("pixels", by_pixels)):
        taken = {ref.name for ref in found.values()}
        old, new = defaultdict[str, list[str]](list), defaultdict[str, list[ImageRef]](list)
        for entry in entries:
            if entry.image not in found:
                old[getattr(entry.mask.picture, attribute)].append(entry.image)
        old.pop("", None)
        for ref in pictures if old else ():
            if ref.name not in taken:
                new[digest_by(ref)].append(ref)
        for digest in old.keys() & new.keys():
            if len(old[digest]) == len(new[digest]) == 1:
                found[old[digest][0]] = new[digest][0]
            elif not {*old[digest]} & {ref.name for ref in new[digest]}:
                alike.update(old[digest])
    return {name: ref for name, ref in found.items() if name != ref.name}, tuple(sorted(alike))


def follow(folder: OutputFolder, renamed: dict[str, ImageRef]) -> None:
    """Give masks, and what only the model can write, the names that their pictures have now. `settle` writes other files.

    Raise OutputError if the folder cannot be written.
    """
    if not renamed:
        return
    folder.changed = True
    folder.__dict__.pop("previous", None)
    staged = temporary_path(folder.path / MOVING)
    try:
        for number, (old, ref) in enumerate(sorted(renamed.items(), key=lambda pair: pair[0])):
            entry = folder.cache.get(old)
            assert entry is not None
            if entry.state != SEALED:
                entry = folder.adopt(entry)
            _stage(folder, entry, ref, staged / str(number))
        staged.rename(folder.path / MOVING)
    except OSError as error:
        raise output_error(folder.path / MOVING, error) from error
    folder.look()


def _stage(folder: OutputFolder, entry: Entry, ref: ImageRef, place: Path) -> None:
    """Copy the mask of an image with another name inside, and what only the model can write, into a folder."""
    facts = entry.mask
    names = [name for name in dict.fromkeys((*facts.formerly, facts.image)) if name != ref.name]
    new = replace(facts, image=ref.name, formerly=tuple(names))
    place.mkdir(parents=True)
    if (mask := folder.context.block_mask) is not None:
        mask.copy_mask(folder.files.path(entry.place), place / MASK, facts_text(new))
    else:
        (place / MASK).write_bytes(seal(folder.read_mask(entry), new, entry.bulk.unpacked()))
    for name, path in model_files(folder.context, entry.image).items():
        if path.is_file():
            (place / name).write_bytes(attach(path.read_bytes(), new))
