"""Masks that are there already, for `tipsseg eval --pred`: where they are, and what their ids are called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tipsseg.errors import InputError, OutputError, UsageError
from tipsseg.formats import FORMATS, index_masks
from tipsseg.formats.classes_file import CLASSES_FILE, class_names
from tipsseg.formats.problem import class_faults
from tipsseg.options import NAMES
from tipsseg.runs.common import inputs
from tipsseg.runs.common.inputs import Found
from tipsseg.store.lock import finish_command, is_unfinished
from tipsseg.store.open_run import OTHER_CLASSES, read_record
from tipsseg.store.run_record import RUN_FILE, find_run, refuse_other_record
from tipsseg.store.shards import shards_in, state_folders
from tipsseg.util.files import is_file, is_folder, read_regular
from tipsseg.util.json_values import parse
from tipsseg.util.printable import counted, listed

#: The folder of an output folder that has its masks.
_MASKS = FORMATS[index_masks()[0]].folder or ""

_GIVE = "Give the classes with argument `classes` or argument `vocabulary`."
_PRED = "Argument `predicted` takes a folder of masks, or the output folder of a run with argument `formats`=png."


def masks_folder(folder: Path) -> Path:
    """Return the folder itself, or masks/ of the output folder of a run.

    Raises InputError for what is not a folder, for a run without masks, and for a merge that has not ended: masks may be missing.
    """
    if not is_folder(folder):
        raise InputError(f"{folder}: {'not a folder' if is_file(folder) else 'no such folder'}", _PRED)
    if is_unfinished(folder):
        raise InputError(f"{folder}: a merge into it has not ended", f"Finish it first: {finish_command(folder)}")
    if not (folder / RUN_FILE).is_file() and not shards_in(folder):
        return folder
    if (inner := folder / _MASKS).is_dir():
        return inner
    if (folder / CLASSES_FILE).is_file():
        raise InputError(f"the run in {folder} wrote no masks", "Label with argument `formats`=png.")
    return folder


def find_masks(folder: Path) -> Found:
    """Find the masks in a folder, or those of the run whose output folder it is. Raises InputError."""
    masks = masks_folder(folder)
    try:
        found = inputs.find([masks], output=None)
    except InputError as error:
        raise InputError(error.message.replace("no images", "no masks", 1), _PRED) from error
    inputs.check_listed(found)
    if _names(folder) == NAMES[0]:
        return found
    # Such a mask is of the image whose whole name it has before its suffix.
    return replace(found, refs=tuple(replace(ref, relative=ref.relative.with_suffix("")) for ref in found.refs))


def _places(folder: Path) -> list[Path]:
    """Return where the records of the run may be that wrote the masks in a folder."""
    # Beside other folders than masks/ they would be about other masks.
    return [folder, folder.absolute().parent] if folder.absolute().name == _MASKS else [folder]


def _names(folder: Path) -> str:
    """Return the choice of `FileOptions.names` of the run that wrote the masks in a folder."""
    places = _places(folder)
    records = (*places, *(state for place in places for state in state_folders(place)[:1]))
    found = (info for place in records if (info := find_run(place)) is not None)
    return next((info.spec.files.names for info in found), NAMES[0])


def names_of(folder: Path, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes 1..N of masks: the given names, or else those that the run wrote beside the masks.

    Raises:
        UsageError: There are no names; or the given names are more or fewer than the names of the run, or in another order: the
            ids would mean other classes.
        InputError: No names are given, and the names of the run cannot be read.
    """
    if given is None:
        return names_beside(folder)
    try:
        written = names_beside(folder)
    except (UsageError, InputError):  # masks from elsewhere
        return tuple(given)
    if len(given) != len(written):
        raise UsageError(
            f"{counted(len(given), 'class', 'classes')} given, but the masks in {folder} were made with {len(written)}: "
            f"{listed(written, 6)}",
            "The names are known from that run: leave out argument `classes` and argument `vocabulary`. To score by argument "
            "`layout`, label with the vocabulary of its name.",
        )
    if in_other_order(given, written):
        raise UsageError(
            f"the masks in {folder} were made with the classes in another order: {', '.join(written)}",
            "Leave out argument `classes` and argument `vocabulary`; the names are known from that run. The truth must have its "
            "order.",
        )
    return tuple(given)


def in_other_order(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether these are the same names, but not in the same order."""
    first, second = [name.casefold() for name in names], [name.casefold() for name in others]
    return first != second and sorted(first) == sorted(second)


def names_beside(folder: Path) -> tuple[str, ...]:
    """Return the class names in the classes.json of a run's output folder, or of the folder that holds its masks/.

    Raises UsageError if there is none, InputError if it cannot be used.
    """
    path = next((place / CLASSES_FILE for place in _places(folder) if (place / CLASSES_FILE).is_file()), None)
    if path is None:
        raise UsageError(
            f"no {CLASSES_FILE} beside the masks in {folder} says what their ids mean",
            "Give the classes with argument `classes`, argument `vocabulary` or argument `layout`.",
        )
    try:
        classes = class_names(parse(read_regular(path)))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not what tipsseg writes", _GIVE) from error
    if not classes:
        raise InputError(f"{path} names no classes", _GIVE)
    _refuse_other_names(path, classes)
    return tuple(name for _, name in classes)


def _refuse_other_names(path: Path, classes: Sequence[tuple[int, str]]) -> None:
    """Raise InputError if the run.json beside a classes.json, or one of the shards', gives the ids another meaning."""
    for state in (path.parent, *state_folders(path.parent)):
        try:
            refuse_other_record(state)
        except OutputError:  # of another tool
            continue
        if os.path.lexists(state / RUN_FILE):
            for what in class_faults(classes, read_record(state / RUN_FILE, _GIVE).names):
                raise InputError(f"{path}: {what}", f"{OTHER_CLASSES} {_GIVE}")
