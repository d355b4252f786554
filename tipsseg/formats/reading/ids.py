"""Names of classes, and ids in masks -> label ids of a run. If a classes.json says what the ids mean, its names decide."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError, InputError
from tipsseg.formats import FORMATS, index_masks
from tipsseg.formats.classes_file import CLASSES_FILE, ordered_names
from tipsseg.formats.reading.source import Source
from tipsseg.regions.components import count_labels
from tipsseg.types import BACKGROUND, MAX_CLASSES_8_BIT, LabelArray, LabelClass, ignore_id
from tipsseg.util.files import RECORD_LIMIT, is_folder, read_regular, reason_of
from tipsseg.util.json_values import parse
from tipsseg.util.printable import listed, quoted
from tipsseg.vocabulary.vocabulary import MAX_CLASSES

#: What pixels without a class are called by tools that need a name for them.
_BACKGROUND_NAME = "background"

_HINT = "Restore it. Or copy the masks to a folder without it, where their ids are those of the run."


class ClassNames:
    """The classes of a run by their names.

    Attributes:
        known: The number of classes that the run has.
    """

    def __init__(self, classes: Sequence[LabelClass], *, add: bool) -> None:
        """Index the classes of the run. `add` tells whether a name that is none of them becomes a further class."""
        self._bits, self._most = (8, MAX_CLASSES_8_BIT) if len(classes) <= MAX_CLASSES_8_BIT else (16, MAX_CLASSES)
        self._names = [each.name for each in classes]
        self.known = len(classes)
        self._add = add
        self._ids = {each.name: each.id for each in classes}
        self._folded: dict[str, list[int]] = defaultdict(list)
        for each in classes:
            self._folded[_folded(each.name)].append(each.id)
        self._unknown: dict[str, None] = {}

    @property
    def added(self) -> tuple[str, ...]:
        """The names of classes that the run did not have, in the order of their ids."""
        return tuple(self._names[self.known :])

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
                f"{self.known} classes and {len(self.added)} more do not fit into masks of {self._bits} bits, "
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
    """Return a name as vocabularies have it: tools often write underscores for spaces."""
    return " ".join(name.replace("_", " ").split())


def _folded(name: str) -> str:
    return _cleaned(name).casefold()


class MaskIds:
    """The meaning of the ids in the masks of a source."""

    def __init__(self, source: Source, names: ClassNames) -> None:
        """Read what is beside the masks; `names` are those of the run. Raises ImageError for a classes.json that cannot be used."""
        self._run = names
        #: The class names in each folder of the source that has a classes.json.
        self._inside: Mapping[PurePosixPath, Sequence[str]] = {
            PurePosixPath(name).parent: _names_in(source.shown(name), source.read(name, RECORD_LIMIT))
            for name in source.names
            if PurePosixPath(name).name == CLASSES_FILE
        }
        self._outside = None if PurePosixPath() in self._inside else _names_around(source.path)

    def as_in_run(self, name: str, where: Path, stored: LabelArray) -> NDArray[np.uint16]:
        """The labels of a mask with the ids of the run.

        Args:
            name: The mask in the source.
            where: The mask as people are told of it.
            stored: [H, W] uint8 or uint16, the ids in the mask.

        Returns:
            [H, W] uint16. A class that the run does not have is kept for `ClassNames.refuse`.

        Raises:
            ImageError: For ids that are no class.
        """
        folders = PurePosixPath(name).parents
        written = next((self._inside[each] for each in folders if each in self._inside), self._outside)
        number = self._run.known if written is None else len(written)
        table = np.zeros(1 << 16, np.uint16)
        unknown = []
        for each in np.flatnonzero(count_labels(stored)).tolist():
            if each == BACKGROUND:
                continue
            if each == ignore_id(number):
                table[each] = ignore_id(self._run.known)
            elif each > number:
                unknown.append(each)
            else:
                table[each] = each if written is None else self._run.id_of(written[each - 1])
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise ImageError(
                where,
                f"ids that are no class: {unknown[0]}{more}",
                f"The ids are 0 for background, 1..{number} as in {CLASSES_FILE}, and {ignore_id(number)} for ignored pixels.",
            )
        return table[stored]


def _names_around(path: Path) -> Sequence[str] | None:
    """Return the class names in the output folder that a source is in, or in the folder of a file; None if there are none."""
    tops = {str(FORMATS[name].folder).split("/")[0] for name in index_masks()}
    for place in (path.absolute(), path.resolve()):  # a link may have another name
        folders = [each.parent for each in (place, *place.parents) if each.name in tops]
        for folder in folders if is_folder(place) else [place.parent, *folders]:
            listing = folder / CLASSES_FILE
            if listing.is_file():
                try:
                    return _names_in(listing, read_regular(listing))
                except OSError as error:
                    raise ImageError(listing, reason_of(error), _HINT) from error
    return None


def _names_in(where: Path, data: bytes) -> Sequence[str]:
    try:
        return ordered_names(parse(data))
    except ValueError as error:
        raise ImageError(where, f"not as tipsseg writes it: {error}", _HINT) from error
