"""Ids in masks -> label ids of the run. Where a classes.json says what the ids mean, the names of the classes decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.formats import FORMATS, index_masks
from tipsseg.regions.components import count_labels
from tipsseg.runs.correct.names import ClassNames
from tipsseg.runs.correct.source import Source
from tipsseg.store.classes_file import CLASSES_FILE, ordered_names
from tipsseg.types import BACKGROUND, LabelArray, ignore_id
from tipsseg.util.files import RECORD_LIMIT, is_folder, read_regular, reason_of
from tipsseg.util.json_values import parse

_HINT = "Restore it. Or copy the masks to a folder without it, where their ids are those of the run."


class MaskIds:
    """What the ids in the masks of a source mean."""

    def __init__(self, source: Source, names: ClassNames, classes: int) -> None:
        """`names`: the classes of the run; `classes`: their number. Raises ImageError for a classes.json that cannot be used."""
        self._run = names
        self._classes = classes
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
        number = self._classes if written is None else len(written)
        table = np.zeros(1 << 16, np.uint16)
        unknown = []
        for each in np.flatnonzero(count_labels(stored)).tolist():
            if each == BACKGROUND:
                continue
            if each == ignore_id(number):
                table[each] = ignore_id(self._classes)
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
    """The class names in the output folder that a source is a part of, or in the folder of a file; None where there are none."""
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
