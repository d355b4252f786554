"""classes.json, which defines the ids in masks. Every run writes it, whatever its formats; readers of edited masks obey it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import ImageError
from tipsseg.formats.records import ClassNames, image_errors
from tipsseg.formats.source import Source
from tipsseg.regions.components import count_labels
from tipsseg.types import BACKGROUND, LabelArray, LabelClass, ignore_id
from tipsseg.util.files import RECORD_LIMIT, is_folder
from tipsseg.util.json import json_bytes, parse, take
from tipsseg.util.text import join_first
from tipsseg.vocabulary.vocabulary import ClassSpec

CLASSES_FILE = "classes.json"

#: Folders of output folders that contain index masks.
_MASK_FOLDERS = frozenset({"masks", "hf"})

_HINT = (
    'It must be like {"classes": [{"id": 1, "name": "tree"}, {"id": 2, "name": "car"}]}. Or copy the masks to a folder without it: '
    "their ids then follow the run."
)


def classes_json(classes: Sequence[LabelClass], background: Sequence[str], asked: Mapping[int, int]) -> bytes:
    """Return the content of classes.json.

    Keys: `background` and `ignore`, the ids of pixels without a class; `background_phrases`, the phrases whose pixels are written
    as background; and `classes`: id, name, synonyms, colour "#rrggbb", supercategory; and where they apply min_confidence, part_of
    (the name of its whole), phrase, thing, and asked, the number of images in which the class competes, if that is not all of them.
    """
    record = {
        "background": BACKGROUND,
        "ignore": ignore_id(len(classes)),
        "background_phrases": list(background),
        "classes": [_class_record(entry, classes, asked.get(entry.id)) for entry in classes],
    }
    return json_bytes(record, indent=2) + b"\n"


def ordered_names(record: object) -> tuple[str, ...]:
    """Return the class names in a parsed classes.json, in the order of their ids. Raise ValueError unless the ids are 1, 2, ..."""
    names = names_by_id(record)
    if [label_id for label_id, _ in names] != list(range(1, len(names) + 1)):
        raise ValueError("the class ids are not 1, 2, ...")
    return tuple(name for _, name in names)


def names_by_id(record: object) -> tuple[tuple[int, str], ...]:
    """Return the id and name of each class in a parsed classes.json. A missing id defaults to the position, from 1.

    Raise ValueError if the record is not a valid classes.json.
    """
    classes = take(record, "classes", list)
    return tuple(
        (take(entry, "id", int) if not isinstance(entry, dict) or "id" in entry else number, take(entry, "name", str))
        for number, entry in enumerate(classes, start=1)
    )


def _class_record(entry: LabelClass, classes: Sequence[LabelClass], asked: int | None) -> dict[str, object]:
    return {
        "id": entry.id,
        "name": entry.name,
        "synonyms": list(entry.synonyms),
        "colour": "#" + bytes(entry.colour).hex(),
        "supercategory": entry.supercategory or entry.name,
        **({} if entry.min_confidence is None else {"min_confidence": entry.min_confidence}),
        **({"part_of": classes[entry.part_of - 1].name} if entry.part_of else {}),
        **({"phrase": entry.phrase} if entry.phrase else {}),
        **({} if entry.thing is None else {"thing": entry.thing}),
        **({} if asked is None else {"asked": asked}),
    }


class MaskIds:
    """Map the ids in the masks of a source to the label ids of a run."""

    def __init__(self, source: Source, names: ClassNames) -> None:
        """Read each classes.json in or around the source. `names` are the run's classes. Raise ImageError if one is invalid."""
        self._run = names
        #: Class names by folder, for folders in the source that contain a classes.json.
        self._inside: Mapping[PurePosixPath, Sequence[str]] = {
            PurePosixPath(name).parent: _parse_names(source.display_path(name), source.read(name, RECORD_LIMIT))
            for name in source.find_name(CLASSES_FILE)
        }
        around = None if PurePosixPath() in self._inside else _read_around(source.path)
        self._outside = None if around is None else _parse_names(*around)
        for listed in (*self._inside.values(), self._outside or ()):
            names.declare(listed)

    def to_run_ids(
        self, name: str, where: Path, stored: LabelArray, inside: Mapping[int, str] = MappingProxyType({})
    ) -> NDArray[np.uint16]:
        """Map the ids in a mask to the label ids of the run.

        Args:
            name: The path of the mask in the source.
            where: The path of the mask, for messages.
            stored: [H, W] uint8 or uint16, the ids in the mask.
            inside: The names of classes by id that the mask has itself, if no classes.json lists them.

        Returns:
            [H, W] uint16. `ClassNames.raise_unknown` reports unknown classes.

        Raises:
            ImageError: The mask has an unknown id.
        """
        folders = PurePosixPath(name).parents
        written = next((self._inside[folder] for folder in folders if folder in self._inside), self._outside)
        number = self._run.count if written is None else len(written)
        if written is not None:
            inside = {}
        own = {each.id: each.name for each in self._run.classes}
        is_foreign = any(own.get(each) != inside[each] for each in inside)
        table = np.zeros(1 << 16, np.uint16)
        unknown = []
        for stored_id in np.flatnonzero(count_labels(stored)).tolist():
            if stored_id == BACKGROUND:
                continue
            if stored_id == (int(np.iinfo(stored.dtype).max) if inside else ignore_id(number)):
                table[stored_id] = ignore_id(self._run.count)
            elif stored_id in inside:
                table[stored_id] = self._run.id_of(inside[stored_id])
            elif stored_id > number or is_foreign:
                unknown.append(str(stored_id))
            else:
                table[stored_id] = stored_id if written is None else self._run.id_of(written[stored_id - 1])
        if unknown:
            hint = f"Valid ids are 0 for background, 1..{number} for the classes, and {ignore_id(number)} for ignored pixels."
            raise ImageError(where, f"unknown ids: {join_first(unknown, 1)}", hint)
        return table[stored]


def read_relations(source: Source) -> Mapping[str, ClassSpec]:
    """Return the classes in the classes.json in or around a source by name, with their wholes and phrases; none without it.

    Raise ImageError if the file is invalid.
    """
    if source.has(CLASSES_FILE):
        where, data = source.display_path(CLASSES_FILE), source.read(CLASSES_FILE, RECORD_LIMIT)
    elif around := _read_around(source.path):
        where, data = around
    else:
        return {}
    found = {}
    with image_errors(where):
        for entry in take(parse(data), "classes", list):
            name = take(entry, "name", str)
            whole, phrase = (take(entry, key, str) if key in entry else "" for key in ("part_of", "phrase"))
            found[name] = ClassSpec(name, part_of=whole, phrase=phrase)
    return found


def _read_around(path: Path) -> tuple[Path, bytes] | None:
    """Return the classes.json of the folder or output folder around a source, and its content; None if there is none.

    Raise ImageError if it is too large or cannot be read.
    """
    for place in (path.absolute(), path.resolve()):  # the name of a link may differ from its target's
        folders = [parent.parent for parent in (place, *place.parents) if parent.name in _MASK_FOLDERS]
        for folder in folders if is_folder(place) else [place.parent, *folders]:
            if (listing := folder / CLASSES_FILE).is_file():
                with Source(listing) as around:
                    return listing, around.read(CLASSES_FILE, RECORD_LIMIT)
    return None


def _parse_names(where: Path, data: bytes) -> Sequence[str]:
    try:
        return ordered_names(parse(data))
    except ValueError as error:
        raise ImageError(where, f"not a list of classes: {error}", _HINT) from error
