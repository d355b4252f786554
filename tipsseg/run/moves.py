"""Find the renamed pictures of a folder that has labels of them, and those that are gone.

A picture whose name is new, and whose bytes equal exactly one recorded image whose file is gone, is that image. Files are
compared by size before any is read, and nothing is looked up if no recorded file is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tipsseg.images.access import below, identify, is_gone, stamp_source
from tipsseg.run.entry import Entry
from tipsseg.run.folder import OutputFolder
from tipsseg.run.inputs import Images
from tipsseg.run.read import RunImage
from tipsseg.types import ImageRef
from tipsseg.util.files import actual_path, is_same


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """The recorded images that a run does not find where they were.

    Attributes:
        recorded: The number of images of the run that the folder records.
        renamed: The pictures with another name by now, by the recorded name.
        gone: The images without a picture that nobody corrected.
        corrected: The images without a picture that a person corrected.
    """

    recorded: int = 0
    renamed: dict[str, ImageRef] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()


def find_moves(folder: OutputFolder, images: Images) -> Moves:
    """Compare the images of a run with those that its folder records. Streams and shards have no moves."""
    refs = {item.name: item for item in images.known if isinstance(item, ImageRef)}
    if folder.before is None or folder.info.spec.shard is not None or not refs:
        return Moves()
    known = {*folder.state.names()}
    new = [ref for name, ref in refs.items() if name not in known]
    elsewhere = known - refs.keys()
    if not images.whole:  # the others were not looked for
        before = (
            old for names in folder.state.former.values() for old in names
        )  # a killed command may have left both names
        elsewhere &= {*before, *folder.state.names_of_sizes({size for ref in new if (size := _size(ref)) is not None})}
    # On a file system that ignores case, the old name of a picture still finds it.
    folded = {ref.name.casefold(): ref.path for ref in new}
    missing = []
    for name in sorted(elsewhere):
        entry = folder.state.get(name)
        assert entry is not None
        path = actual_path(Path(), entry.path)
        here = path if path.is_relative_to(images.root) else below(images.root, name)
        if (is_gone(path) and is_gone(here)) or (
            (twin := folded.get(name.casefold())) is not None and is_same(here, twin)
        ):
            missing.append(entry)
    renamed = _half_renamed(folder, missing, refs) | _find_renamed(missing, new)
    left = [entry.image for entry in missing if entry.image not in renamed and images.whole]
    return Moves(
        recorded=len(refs) - len(new),
        renamed=renamed,
        gone=tuple(name for name in left if not folder.image(name).corrected),
        corrected=tuple(name for name in left if folder.image(name).corrected),
    )


def _half_renamed(folder: OutputFolder, missing: Iterable[Entry], refs: Mapping[str, ImageRef]) -> dict[str, ImageRef]:
    """Return the images of which a killed command left both names, with the same labels."""
    names = {old: name for name, before in folder.state.former.items() for old in before}
    found = {}
    for entry in missing:
        name = names.get(entry.image, "")
        other = folder.state.get(name) if name in refs else None
        if other is not None and (other.version, other.correction_text) == (entry.version, entry.correction_text):
            found[entry.image] = refs[name]
    return found


def _find_renamed(missing: Iterable[Entry], new: Iterable[ImageRef]) -> dict[str, ImageRef]:
    """Return the new pictures that are gone ones, by name: those whose bytes one of each has."""
    entries, pictures = defaultdict[str, list[Entry]](list), defaultdict[str, list[ImageRef]](list)
    for entry in missing:
        if entry.input.sha256 is not None:
            entries[entry.input.sha256].append(entry)
    sizes = {entry.input.size for own in entries.values() for entry in own}
    for ref in new if entries else ():
        with suppress(OSError, ValueError):  # reported when the image is read
            if _size(ref) in sizes and (sha256 := identify(ref.path)[1]) in entries:
                pictures[sha256].append(ref)
    return {
        entries[sha256][0].image: refs[0] for sha256, refs in pictures.items() if len(refs) == len(entries[sha256]) == 1
    }


def _size(ref: ImageRef) -> int | None:
    with suppress(OSError, ValueError):
        return stamp_source(ref.path).size
    return None


def join_renamed(folder: OutputFolder) -> dict[str, str]:
    """Join images of one picture that runs label under two names, and return the names of now by the ones that are gone.

    An image whose picture is gone, and whose bytes one other image has, becomes that image. Its correction goes along, unless the
    other one is corrected too; both stay then.
    """
    found = list[tuple[RunImage, RunImage]]()
    for names in folder.state.pairs():
        images = [folder.image(name) for name in names]
        gone = [is_gone(image.path(None)) for image in images]
        if sum(gone) == 1 and not all(image.corrected for image in images):
            found.append((images[gone.index(True)], images[gone.index(False)]))
    joined = {old.entry.image: new.entry.image for old, new in found}
    folder.state.add_former(joined.items())
    for old, new in found:
        if old.corrected:
            folder.forget(new.entry.image)
            folder.clear_orphans()
            folder.rename(old, new.ref(None))
        else:
            folder.forget(old.entry.image)
    return joined
