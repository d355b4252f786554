"""Names of images in a source -> images of the run."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from tipsseg.errors import InputError
from tipsseg.util.printable import listed, quoted

#: Ends of the names of images. Another end may be a part of the name, as in "scan.0041".
_IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm"}
)  # fmt: skip

#: File names as tools change them: Label Studio at an upload, Roboflow at an export.
_RENAMED = (
    re.compile(r"[0-9a-f]{8}-(?P<name>.+)"),
    re.compile(r"(?P<name>.+)_(?:jpe?g|png|webp|bmp|tiff?|avif|heic)\.rf\.\w+(?:\.\w+)?", re.IGNORECASE),
)


class ImageNames:
    """The images of a run by their names."""

    def __init__(self, images: Iterable[str]) -> None:
        """Index the images of a manifest."""
        #: The images by their paths, with and without suffix.
        self._whole: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for image in images:
            *folders, file = PurePosixPath(image).parts
            for last in {file, PurePosixPath(file).stem}:
                self._whole[(*folders, last)].append(image)
        self._deepest = max(map(len, self._whole), default=0)
        #: The images by the last parts of these paths, for each number of parts that was asked for.
        self._ends: dict[int, dict[tuple[str, ...], list[str]]] = {}

    def find(self, name: str) -> str | None:
        """Return the image that a source calls so; None if the run has none.

        The path of the image ends as the name does, or the name as the path of the image; suffixes of files may differ. What tools
        put before and behind the names of files counts only if an image has it.

        Raises:
            InputError: If it may be one of several images.
        """
        parts = tuple(part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".", ".."))
        for spelling in _spellings(parts):
            if images := self._called(spelling):
                if len(images) > 1:
                    raise InputError(
                        f"{quoted(name)} may be {listed(sorted(images), 4)}",
                        "Give the corrections the folders, or the suffixes, that the images have.",
                    )
                return images.pop()
        return None

    def _called(self, parts: tuple[str, ...]) -> set[str]:
        """Return the image of that very path; else all images whose paths end so, and the longest path with which it ends."""
        if parts in self._whole:
            return set(self._whole[parts])
        ends = (parts[-number:] for number in range(min(len(parts), self._deepest), 0, -1))
        longest = next((end for end in ends if end in self._whole), None)
        return {*self._ending(parts), *(self._whole[longest] if longest else ())}

    def _ending(self, parts: tuple[str, ...]) -> list[str]:
        """Return the images whose paths end with these parts."""
        number = len(parts)
        if number > self._deepest:
            return []
        if number not in self._ends:
            self._ends[number] = defaultdict(list)
            for own, images in self._whole.items():
                if len(own) >= number:
                    self._ends[number][own[-number:]] += images
        return self._ends[number].get(parts, [])


def _spellings(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield a path as it is, without the suffix of an image, and as it was before a tool renamed its file."""
    if not parts:
        return
    # Tools that rename files put all into one folder of their own.
    renamed = [(found["name"],) for pattern in _RENAMED if (found := pattern.fullmatch(parts[-1]))]
    for *folders, file in (parts, *renamed):
        yield (*folders, file)
        path = PurePosixPath(file)
        if path.suffix.lower() in _IMAGE_SUFFIXES:
            yield (*folders, path.stem)
