"""Match the image names in a source with the images of a run."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from pathlib import Path, PurePosixPath

from tipsseg.errors import ImageError
from tipsseg.types import ImageRef, printable_path
from tipsseg.util.text import join_first, quote

#: Suffixes of images. Any other suffix may be part of the name, as in "scan.0041".
_IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm"}
)  # fmt: skip

#: Folders in data sets of any content.
_ANY_DATA_SET = frozenset(
    {"annotations", "data", "default", "images", "instances", "labels", "masks", "panoptic", "segmentationclass"}
    | {"test", "train", "val", "valid", "validation"}
)

#: A separator of folders; not the escape of a byte that is not UTF-8.
_BACKSLASH = re.compile(r"\\(?!udc[89a-f][0-9a-f])")

#: File names as tools rename them: Label Studio on upload, Roboflow on export.
_RENAMED = (
    re.compile(r"[0-9a-f]{8}-(?P<name>.+)"),
    re.compile(r"(?P<name>.+)_(?P<suffix>jpe?g|png|webp|bmp|tiff?|avif|heic)\.rf\.\w+(?:\.\w+)?", re.IGNORECASE),
)


@dataclass(frozen=True, slots=True)
class _Spelling:
    """A way in which a name in a source may spell an image.

    Attributes:
        name: The name.
        folders: Its folders.
        counting: Those that count, without folders that all names share, and those that tools use for any data set.
        last: The last part, with its suffix.
        is_plain: False if a tool renamed the image.
    """

    name: str
    folders: tuple[str, ...]
    counting: tuple[str, ...]
    last: str
    is_plain: bool


#: How well a name fits an image: the folders that both have in common at their ends, and whether all folders are the same, no tool
#: renamed the image, and the suffix is the same.
_Fit = tuple[int, bool, bool, bool]


class SourceNames:
    """Finds the name in a source for an image of a run. A name belongs to one image. Thread-safe.

    The last part of a name must be the image's; suffixes may differ. The last folder must be the image's too, or the name must end
    with the whole path of the image in its data set. A name needs no folder if it has none, without folders that all names share,
    and those that tools use for any data set, such as "masks" or "train". The name that fits best is taken.
    """

    def __init__(self, names: Iterable[str]) -> None:
        parts = {name: own for name in names if (own := _parts(name))}
        folders_of_all = [own[:-1] for own in parts.values()]
        shared = _common(min(folders_of_all), max(folders_of_all)) if len(parts) > 1 else 0
        #: By the last part, with and without suffix.
        self._by_last: dict[str, list[_Spelling]] = defaultdict(list)
        for name, own in parts.items():
            counting = tuple(dropwhile(lambda folder: folder.lower() in _ANY_DATA_SET, own[shared:-1]))
            whole = own[-1]
            for *folders, last in dict.fromkeys(_spellings(own)):
                whole = last if PurePosixPath(last).suffix.lower() in _IMAGE_SUFFIXES else whole
                is_plain = whole == own[-1]
                spelling = _Spelling(name, tuple(folders), counting if folders else (), whole, is_plain)
                self._by_last[last].append(spelling)
        #: The images that have a name, and whether these are the best of all images.
        self._owners: dict[str, list[str]] = {}
        self._is_whole = False
        #: The previous names of images, by their name of now.
        self.previous: Mapping[str, Sequence[str]] = {}

    def expect(self, refs: Iterable[ImageRef]) -> int:
        """Note which of these images each name belongs to, for example a flat folder of masks for images in several folders.

        Return the number of names that an image has.
        """
        owners: dict[str, dict[str, _Fit]] = defaultdict(dict)
        for ref in refs:
            with suppress(ImageError):
                if found := self._match(ref):
                    owners[found[0]][ref.name] = found[1]
        self._is_whole = True
        for name, fits in owners.items():
            self._owners[name] = [image for image, fit in fits.items() if fit == max(fits.values())]
        return len(owners)

    def find(self, ref: ImageRef) -> str | None:
        """Return the name for an image; None if there is none, or if it fits another image better.

        Raises:
            ImageError: Several names match, or the name matches several images.
        """
        found = self._match(ref)
        if found is None:
            return None
        name, owners = found[0], self._owners.setdefault(found[0], [ref.name])
        if ref.name not in owners and self._is_whole:
            return None
        if owners != [ref.name]:
            reason = f"{quote(name)} could belong to {join_first([*dict.fromkeys([*owners, ref.name])], 3)}"
            raise ImageError(ref.path, reason, "Put the files into folders with the names of the images' folders.")
        return name

    def _match(self, ref: ImageRef) -> tuple[str, _Fit] | None:
        """Return the name that fits an image's name of now, or else a previous one."""
        previous = (ImageRef(Path(name), PurePosixPath(name)) for name in self.previous.get(ref.name, ()))
        return next((found for each in (ref, *previous) if (found := self._fit(each)) is not None), None)

    def _fit(self, ref: ImageRef) -> tuple[str, _Fit] | None:
        *folders, file = _parts(ref.name)
        own = tuple(folders)
        lasts = [last for last in (file, PurePosixPath(file).stem) if last in self._by_last]
        path = _parts(printable_path(ref.path.absolute()))[:-1] if lasts else ()
        found: dict[str, _Fit] = {}
        for each in (each for last in lasts for each in self._by_last[last]):
            common = _common(reversed(each.folders), reversed(path))
            if common or not each.counting or each.folders[len(each.folders) - len(own) :] == own:
                fit = common, own in (each.folders, each.counting), each.is_plain, each.last == file
                found[each.name] = max(fit, found.get(each.name, fit))
        best = [name for name, fit in found.items() if fit == max(found.values())]
        if len(best) > 1:
            reason = f"its name is ambiguous: {join_first(sorted(best), 4)}"
            raise ImageError(ref.path, reason, "Add folders or suffixes to the names of the files.")
        return (best[0], found[best[0]]) if best else None


def _common(first: Iterable[str], second: Iterable[str]) -> int:
    """Return the number of parts that two paths have in common at their beginning."""
    return len([*takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))])


def _parts(name: str) -> tuple[str, ...]:
    """Return the folders and the file of a name. Bytes that are not UTF-8 are escaped as in records."""
    slashed = _BACKSLASH.sub("/", name.encode("utf-8", "backslashreplace").decode("utf-8"))
    return tuple(part for part in PurePosixPath(slashed).parts if part not in ("/", ".", ".."))


def _spellings(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield a path, then without an image suffix, then the names it may have had before a tool renamed the file."""
    if not parts:
        return
    # Tools that rename files put all of them into one folder.
    found = [match.groupdict() for pattern in _RENAMED if (match := pattern.fullmatch(parts[-1]))]
    renamed = [(f"{each['name']}.{each['suffix']}" if "suffix" in each else each["name"],) for each in found]
    for *folders, file in (parts, *renamed):
        yield (*folders, file)
        path = PurePosixPath(file)
        if path.suffix.lower() in _IMAGE_SUFFIXES:
            yield (*folders, path.stem)
