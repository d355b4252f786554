"""Names in a source -> classes and images of the run."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from tipsseg.errors import InputError
from tipsseg.types import BACKGROUND, LabelClass
from tipsseg.util.printable import listed, quoted

#: What pixels without a class are called by tools that need a name for them.
_BACKGROUND_NAME = "background"

#: Ends of the names of images. Another end may be a part of the name, as in "scan.0041".
_IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm"}
)  # fmt: skip


class ClassNames:
    """The classes of a run by their names.

    Attributes:
        added: The names of classes that the run did not have, in the order of their ids.
    """

    def __init__(self, classes: Sequence[LabelClass], *, add: bool) -> None:
        """Of the run. `add` tells whether a name that is none of them becomes a further class."""
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

        "background" is 0 where no class is called so. A name that is unknown is kept for `refuse_unknown`, and is 0 here. Raises
        ValueError for what is no name.
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
            self._ids[name] = len(self._names)
            self._folded[folded].append(len(self._names))
            return self._ids[name]
        self._unknown[name] = None
        return BACKGROUND

    def refuse_unknown(self) -> None:
        """Raise InputError where there were names of no class."""
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
        """Of the manifest."""
        self._exact = set(images)
        self._paths: dict[str, list[str]] = defaultdict(list)
        self._names: dict[str, list[str]] = defaultdict(list)
        for image in self._exact:
            stem = str(PurePosixPath(image).with_suffix(""))
            self._paths[stem].append(image)
            for name in {PurePosixPath(image).name, PurePosixPath(stem).name}:
                self._names[name].append(image)

    def find(self, name: str) -> str | None:
        """The image that a source calls so; None where the run has none.

        By its path, with or without its suffix, also below further folders; then by its file name, where only one image has it.
        Raises InputError where it may be one of several.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        parts = tuple(part for part in parts if part not in ("/", ".", ".."))
        for start in range(max(len(parts) - 1, 1)):
            found = self._by_path("/".join(parts[start:]))
            if found:
                return self._only(name, found)
        file = parts[-1] if parts else ""
        for each in _spellings(file):
            if each in self._names:
                return self._only(name, self._names[each])
        return None

    def _by_path(self, path: str) -> list[str]:
        if path in self._exact:
            return [path]
        return next((self._paths[each] for each in _spellings(path) if each in self._paths), [])

    @staticmethod
    def _only(name: str, images: Sequence[str]) -> str:
        if len(images) > 1:
            raise InputError(
                f"{quoted(name)} may be {listed(sorted(images), 4)}",
                "Give the corrections the folders, or the suffixes, that the images have.",
            )
        return images[0]


def _spellings(name: str) -> tuple[str, ...]:
    """A name as it is, and without the suffix of an image."""
    path = PurePosixPath(name)
    return (name, str(path.with_suffix(""))) if path.suffix.lower() in _IMAGE_SUFFIXES else (name,)
