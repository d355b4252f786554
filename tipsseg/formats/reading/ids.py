"""Map class names and mask ids to the label ids of a run. A classes.json beside the masks defines the mask ids."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, InputError
from tipsseg.formats import FORMATS
from tipsseg.formats.classes_file import CLASSES_FILE, ordered_names
from tipsseg.formats.reading.source import Source
from tipsseg.regions.components import count_labels
from tipsseg.types import BACKGROUND, MAX_CLASSES_8_BIT, LabelArray, LabelClass, ignore_id
from tipsseg.util.files import RECORD_LIMIT, describe_error, is_folder, read_regular
from tipsseg.util.json_values import parse
from tipsseg.util.printable import join_first, quote
from tipsseg.vocabulary.vocabulary import MAX_CLASSES

#: The name of the class that some tools add for pixels without a class.
_BACKGROUND_NAME = "background"

_HINT = (
    'It must be like {"classes": [{"id": 1, "name": "tree"}, {"id": 2, "name": "car"}]}. Or copy the masks to a folder without it: '
    "their ids are then those of the run."
)


class ClassNames:
    """Look up the classes of a run by name.

    Attributes:
        count: The number of classes in the run.
        collects: True if readers pass all classes of a source to `declare`.
    """

    collects = False

    def __init__(self, classes: Sequence[LabelClass], *, add: bool) -> None:
        """Index the classes of a run. If `add` is True, an unknown name becomes a new class."""
        self._bits, self._most = (8, MAX_CLASSES_8_BIT) if len(classes) <= MAX_CLASSES_8_BIT else (16, MAX_CLASSES)
        self._names = [entry.name for entry in classes]
        self.count = len(classes)
        self._add = add
        self._ids = {entry.name: entry.id for entry in classes}
        self._folded: dict[str, list[int]] = defaultdict(list)
        for entry in classes:
            self._folded[fold(entry.name)].append(entry.id)
        self._unknown: dict[str, None] = {}

    @property
    def added(self) -> tuple[str, ...]:
        """The names of the new classes, in the order of their ids."""
        return tuple(self._names[self.count :])

    def declare(self, names: Iterable[object]) -> None:
        """Take note of classes that a source lists, whether or not an object has them. Here they have no effect."""

    def id_of(self, name: object) -> int:
        """Return the label id of a class. A name that differs only in case or spacing also matches, unless it is ambiguous.

        "background" returns 0 unless a class has that name. An unknown name, or a new class above the limit, returns 0, and
        `raise_unknown` reports it later. Raises ValueError if `name` is blank or not a string.
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError("an object has no class name")
        if name in self._ids:
            return self._ids[name]
        folded = fold(name)
        alike = self._folded.get(folded, [])
        if len(alike) == 1:
            return alike[0]
        if folded == _BACKGROUND_NAME and not alike:
            return BACKGROUND
        if self._add and not alike:
            self._names.append(_clean(name))
            added = len(self._names) if len(self._names) <= self._most else BACKGROUND
            self._ids[name] = added
            self._folded[folded].append(added)
            return added
        self._unknown[name] = None
        return BACKGROUND

    @property
    def too_many(self) -> bool:
        """True if the masks cannot store that many classes."""
        return len(self._names) > self._most

    def raise_unknown(self) -> None:
        """Raise InputError if a name was unknown, or if the masks cannot store that many classes."""
        if self.too_many:
            raise InputError(
                f"{self.count} classes and {len(self.added)} new ones exceed the limit of {self._bits}-bit masks, {self._most}",
                "Add fewer classes, or label again with all of them.",
            )
        if not self._unknown:
            return
        texts = []
        for name in self._unknown:
            close = difflib.get_close_matches(fold(name), list(self._folded), n=1)
            known = self._names[self._folded[close[0]][0] - 1] if close else ""
            texts.append(quote(name) + (f" (did you mean {quote(known)}?)" if known else ""))
        raise InputError(
            f"unknown class {join_first(texts, 5)}",
            "Rename it in the labelling tool, or add it to the run with argument `add_classes`. "
            f"The classes are: {join_first(self._names, 20)}.",
        )


def _clean(name: str) -> str:
    """Replace underscores, which many tools write, with spaces, and remove surplus spaces."""
    return " ".join(name.replace("_", " ").split())


def fold(name: str) -> str:
    """Return a name without differences of case and spacing."""
    return _clean(name).casefold()


class MaskIds:
    """Map the ids in the masks of a source to the label ids of a run."""

    def __init__(self, source: Source, names: ClassNames) -> None:
        """Read each classes.json in or around the source. `names` are the run's classes. Raises ImageError if one is invalid."""
        self._run = names
        #: Class names by folder, for folders in the source that contain a classes.json.
        self._inside: Mapping[PurePosixPath, Sequence[str]] = {
            PurePosixPath(name).parent: _parse_names(source.display_path(name), source.read(name, RECORD_LIMIT))
            for name in source.find_name(CLASSES_FILE)
        }
        self._outside = None if PurePosixPath() in self._inside else _read_names_around(source.path)
        for listed in (*self._inside.values(), self._outside or ()):
            names.declare(listed)

    def to_run_ids(self, name: str, where: Path, stored: LabelArray) -> NDArray[np.uint16]:
        """Map the ids in a mask to the label ids of the run.

        Args:
            name: The path of the mask in the source.
            where: The path of the mask, for messages.
            stored: [H, W] uint8 or uint16, the ids in the mask.

        Returns:
            [H, W] uint16. `ClassNames.raise_unknown` reports unknown classes.

        Raises:
            ImageError: The mask has an unknown id.
        """
        folders = PurePosixPath(name).parents
        written = next((self._inside[folder] for folder in folders if folder in self._inside), self._outside)
        number = self._run.count if written is None else len(written)
        table = np.zeros(1 << 16, np.uint16)
        unknown = []
        for stored_id in np.flatnonzero(count_labels(stored)).tolist():
            if stored_id == BACKGROUND:
                continue
            if stored_id == ignore_id(number):
                table[stored_id] = ignore_id(self._run.count)
            elif stored_id > number:
                unknown.append(str(stored_id))
            else:
                table[stored_id] = stored_id if written is None else self._run.id_of(written[stored_id - 1])
        if unknown:
            raise ImageError(
                where,
                f"unknown ids: {join_first(unknown, 1)}",
                f"Valid ids are 0 for background, 1..{number} for the classes, and {ignore_id(number)} for ignored pixels.",
            )
        return table[stored]


def _read_names_around(path: Path) -> Sequence[str] | None:
    """Return the class names in the classes.json of the folder or output folder around a source; None without that file."""
    tops = {str(FORMATS[name].folder).split("/")[0] for name in ("png", "hf")}
    for place in (path.absolute(), path.resolve()):  # the name of a link may differ from its target's
        folders = [parent.parent for parent in (place, *place.parents) if parent.name in tops]
        for folder in folders if is_folder(place) else [place.parent, *folders]:
            listing = folder / CLASSES_FILE
            if listing.is_file():
                try:
                    return _parse_names(listing, read_regular(listing))
                except OSError as error:
                    raise ImageError(listing, describe_error(error), _HINT) from error
    return None


def _parse_names(where: Path, data: bytes) -> Sequence[str]:
    try:
        return ordered_names(parse(data))
    except ValueError as error:
        raise ImageError(where, f"not a list of classes: {error}", _HINT) from error
