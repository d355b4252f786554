"""Match the image names in a source with the images of a run."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from itertools import takewhile
from pathlib import PurePosixPath

from tipsseg.errors import ImageError, InputError
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

#: File names as tools rename them: Label Studio on upload, Roboflow on export.
_RENAMED = (
    re.compile(r"[0-9a-f]{8}-(?P<name>.+)"),
    re.compile(r"(?P<name>.+)_(?:jpe?g|png|webp|bmp|tiff?|avif|heic)\.rf\.\w+(?:\.\w+)?", re.IGNORECASE),
)


class ImageNames:
    """An index of a run's images by name."""

    def __init__(self, images: Iterable[str]) -> None:
        self._images = frozenset(images)
        #: Images by path without suffix.
        self._stems: dict[str, tuple[str, ...]] = {}
        for image in self._images:
            stem = str(PurePosixPath(image).with_suffix(""))
            self._stems[stem] = (*self._stems.get(stem, ()), image)
        #: Images by the last N parts of their paths, filled for each N that a search needs.
        self._ends: dict[int, dict[tuple[str, ...], list[str]]] = {}

    @cached_property
    def _whole(self) -> dict[tuple[str, ...], list[str]]:
        """Images by the parts of their paths, with and without suffix; most sources need no index of parts."""
        found: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for image in self._images:
            for path in {PurePosixPath(image), PurePosixPath(image).with_suffix("")}:
                found[path.parts].append(image)
        return found

    @cached_property
    def _deepest(self) -> int:
        return max(map(len, self._whole), default=0)

    def find(self, name: str) -> str | None:
        """Return the image that a source calls `name`, or None if the run does not have it.

        A name matches if it ends with the image's path, or if the path ends with the name; file suffixes may differ. Prefixes and
        suffixes that tools add to file names are ignored, unless an image has them.

        Raises:
            InputError: If several images match.
        """
        for spelling in _spellings(_parts(name)):
            if images := self._find_matching(spelling):
                if len(images) > 1:
                    raise InputError(
                        f"{quote(name)} is ambiguous: {join_first(sorted(images), 4)}",
                        "Name the images in the corrections with their folders or suffixes.",
                    )
                return images.pop()
        return None

    def _find_matching(self, parts: tuple[str, ...]) -> set[str]:
        """Return the images at this path; else those whose paths end with it, and those with the longest path that it ends with."""
        path = "/".join(parts)
        if found := {*self._images.intersection([path]), *self._stems.get(path, ())}:
            return found
        ends = (parts[-number:] for number in range(min(len(parts), self._deepest), 0, -1))
        longest = next((end for end in ends if end in self._whole), None)
        return {*self._find_ending_with(parts), *(self._whole[longest] if longest else ())}

    def _find_ending_with(self, parts: tuple[str, ...]) -> list[str]:
        number = len(parts)
        if number > self._deepest:
            return []
        if number not in self._ends:
            self._ends[number] = defaultdict(list)
            for own, images in self._whole.items():
                if len(own) >= number:
                    self._ends[number][own[-number:]] += images
        return self._ends[number].get(parts, [])


class SourceNames:
    """Finds the name in a source for an image of a run. A name belongs to one image. Thread-safe.

    The last part of a name must be that of the image; suffixes may differ. The last folder must be that of the image too. A name
    needs no folder if it has none, without folders that all names share, and those that tools use for any data set, such as "masks"
    or "train". The name with the most folders in common is taken.
    """

    def __init__(self, names: Iterable[str]) -> None:
        parts = {name: _parts(name) for name in names}
        parts = {name: own for name, own in parts.items() if own}
        folders = [own[:-1] for own in parts.values()]
        first = min(folders, default=())
        shared = len(first) if len(folders) > 1 else 0
        for own in folders:
            shared = next(
                (place for place in range(shared) if own[place : place + 1] != first[place : place + 1]), shared
            )
        #: By the last part, with and without suffix: the folders, the whole last part, and the name.
        self._by_last: dict[str, list[tuple[tuple[str, ...], str, str]]] = defaultdict(list)
        for name, own in parts.items():
            kept = own[shared:-1]
            while kept and kept[0].lower() in _ANY_DATA_SET:
                kept = kept[1:]
            for last in {spelling[-1] for spelling in _spellings(own)}:
                self._by_last[last].append((kept, own[-1], name))
        self._owners: dict[str, str] = {}
        self._shared: dict[str, tuple[str, ...]] = {}

    def expect(self, refs: Iterable[ImageRef]) -> int:
        """Note names that several of these images have, for example a flat folder of masks for images in several folders.

        Return the number of names that an image has.
        """
        owners: dict[str, list[str]] = defaultdict(list)
        for ref in refs:
            with suppress(ImageError):
                if name := self._match(ref):
                    owners[name].append(ref.name)
        self._shared = {name: tuple(images) for name, images in owners.items() if len(images) > 1}
        return len(owners)

    def find(self, ref: ImageRef) -> str | None:
        """Return the name for an image; None if there is none.

        Raises:
            ImageError: Several names match, or the name matches several images.
        """
        name = self._match(ref)
        if name is None:
            return None
        owner = self._owners.setdefault(name, ref.name)
        others = self._shared.get(name) or (() if owner == ref.name else (owner, ref.name))
        if others:
            reason = f"{quote(name)} could belong to {join_first(list(others), 3)}"
            raise ImageError(ref.path, reason, "Put the files into folders that are named like those of the images.")
        return name

    def _match(self, ref: ImageRef) -> str | None:
        path = _parts(printable_path(ref.path.absolute()))
        found: dict[str, tuple[int, bool]] = {}  # folders in common, and whether the suffix is the same, by name
        for last in (path[-1], PurePosixPath(path[-1]).stem):
            for folders, whole, name in self._by_last.get(last, ()):
                pairs = zip(reversed(folders), reversed(path[:-1]), strict=False)
                common = len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])
                if common or not folders:
                    found[name] = common, whole == path[-1]
        best = [name for name, own in found.items() if own == max(found.values())]
        if len(best) > 1:
            reason = f"its name is ambiguous: {join_first(sorted(best), 4)}"
            raise ImageError(ref.path, reason, "Name the files with their folders or suffixes.")
        return best[0] if best else None


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".", ".."))


def _spellings(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield a path, then without an image suffix, then the names it may have had before a tool renamed the file."""
    if not parts:
        return
    # Tools that rename files put all of them into one folder.
    renamed = [(match["name"],) for pattern in _RENAMED if (match := pattern.fullmatch(parts[-1]))]
    for *folders, file in (parts, *renamed):
        yield (*folders, file)
        path = PurePosixPath(file)
        if path.suffix.lower() in _IMAGE_SUFFIXES:
            yield (*folders, path.stem)
