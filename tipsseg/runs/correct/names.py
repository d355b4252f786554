"""Names in a source -> classes and images of the run."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from tipsseg.errors import InputError
from tipsseg.types import BACKGROUND, MAX_CLASSES_8_BIT, LabelClass
from tipsseg.util.printable import listed, quoted
from tipsseg.vocabulary.vocabulary import MAX_CLASSES

#: What pixels without a class are called by tools that need a name for them.
_BACKGROUND_NAME = "background"

#: Ends of the names of images. Another end may be a part of the name, as in "scan.0041".
_IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm"}
)  # fmt: skip

#: File names as tools change them: Label Studio at an upload, Roboflow at an export.
_RENAMED = (
    re.compile(r"[0-9a-f]{8}-(?P<name>.+)"),
    re.compile(r"(?P<name>.+)_(?:jpe?g|png|webp|bmp|tiff?|avif|heic)\.rf\.\w+(?:\.\w+)?", re.IGNORECASE),
)


class ClassNames:
    """The classes of a run by their names.

    Attributes:
        added: The names of classes that the run did not have, in the order of their ids.
    """

    def __init__(self, classes: Sequence[LabelClass], *, add: bool) -> None:
        """Index the classes of the run. `add` tells whether a name that is none of them becomes a further class."""
        self._bits, self._most = (8, MAX_CLASSES_8_BIT) if len(classes) <= MAX_CLASSES_8_BIT else (16, MAX_CLASSES)
        self._names = [each.name for each in classes]
        self._known = len(classes)
        self._add = add
        self._ids = {each.name: each.id for each in classes}
        self._folded: dict[str, list[int]] = defaultdict(list)
        for each in classes:
            self._folded[_folded(each.name)].append(each.id)
        self._unknown: dict[str, None] = {}

    @property
    def added(self) -> tuple[str, ...]:
        """See the class."""
        return tuple(self._names[self._known :])

    def id_of(self, name: object) -> int:
        """The label id of a class: of that very name, or of the only one that differs in capital letters and in what stands for a
        space.

        "background" is 0 where no class is called so. A name that is unknown, or a class too many, is 0 here and kept for `refuse`.
        Raises ValueError for what is no name.
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError("an object without the name of its class")
        if name in self._ids:
            return self._ids[name]
        folded = _folded(name)
        alike = self._folded.get(folded, [])
        if len(alike) == 1:
            return alike[0]
        if folded == _BACKGROUND_NAME and not alike:
            return BACKGROUND
        if self._add and not alike:
            self._names.append(_cleaned(name))
            added = len(self._names) if len(self._names) <= self._most else BACKGROUND
            self._ids[name] = added
            self._folded[folded].append(added)
            return added
        self._unknown[name] = None
        return BACKGROUND

    def refuse(self) -> None:
        """Raise InputError if names were of no class, or of more classes than the masks can hold."""
        if len(self._names) > self._most:
            raise InputError(
                f"{self._known} classes and {len(self.added)} more do not fit into masks of {self._bits} bits, "
                f"which hold {self._most}",
                "Add fewer, or label with all of them from the beginning.",
            )
        if not self._unknown:
            return
        names = list(self._unknown)
        texts = []
        for name in names:
            close = difflib.get_close_matches(_folded(name), list(self._folded), n=1)
            known = self._names[self._folded[close[0]][0] - 1] if close else ""
            texts.append(quoted(name) + (f" (did you mean {quoted(known)}?)" if known else ""))
        raise InputError(
            f"no class of the run is called {listed(texts, 5)}",
            "Rename it where the labels come from, or take further classes in with argument `add_classes`. "
            f"The classes are: {listed(self._names, 20)}.",
        )


def _cleaned(name: str) -> str:
    """A name as vocabularies have it: tools often write underscores for spaces."""
    return " ".join(name.replace("_", " ").split())


def _folded(name: str) -> str:
    return _cleaned(name).casefold()


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
