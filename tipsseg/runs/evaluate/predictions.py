"""Find existing labels and their class names, for `tipsseg eval --pred`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tipsseg.errors import InputError, UsageError
from tipsseg.evaluation.truth import read_predicted
from tipsseg.formats import FORMATS, refuse_parts
from tipsseg.formats.classes_file import CLASSES_FILE, names_by_id
from tipsseg.images.finding import Found
from tipsseg.options import NAMES
from tipsseg.regions.objects import Layer
from tipsseg.run.read import Run, has_run, open_runs, refuse_raster, refuse_shards
from tipsseg.run.record import find_run
from tipsseg.runs.common import inputs
from tipsseg.types import ImageRef, LabelArray
from tipsseg.util.files import is_file, is_folder, read_regular
from tipsseg.util.json_values import parse
from tipsseg.util.printable import join_first, pluralize
from tipsseg.util.problem import class_faults

#: The folder of masks in an output folder.
_MASKS = FORMATS["png"].folder or ""

#: The hint if classes.json and the run give ids different meanings.
OTHER_CLASSES = f"Restore {CLASSES_FILE}, or remove it and run the original command again."

_SET_CLASSES = "Set the classes with argument `classes` or argument `vocabulary`."
_PRED = "Set argument `predicted` to a folder of masks, or to an output folder with the format png."


class Predictions(Protocol):
    """Labels to score. The path in `refs` is that of the mask, or of the image if the labels are in a file for the whole run."""

    @property
    def refs(self) -> Sequence[ImageRef]: ...

    def read(self, ref: ImageRef, classes: int) -> tuple[LabelArray, list[Layer] | None]:
        """Return the label ids of an image [H, W], and the pixels of each class if classes overlap.

        Raises ImageError if they cannot be read, LabelIdError if they are not labels of this number of classes.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class _Masks:
    refs: Sequence[ImageRef]
    max_pixels: int

    def read(self, ref: ImageRef, classes: int) -> tuple[LabelArray, None]:
        return read_predicted(ref.path, classes, self.max_pixels), None


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunLabels:
    """The labels of a run."""

    refs: Sequence[ImageRef]
    run: Run

    def read(self, ref: ImageRef, classes: int) -> tuple[LabelArray, list[Layer] | None]:
        labels = self.run.image(ref.name).current().labels
        return labels.labels, None if labels.layers is None else list(labels.layers)


@contextmanager
def find_predictions(folder: Path, truths: Path, max_pixels: int) -> Iterator[Predictions]:
    """Find the labels in a run's output folder, or the masks in a folder, see `find_masks`.

    Raises:
        UsageError: The folder is that of the truths.
        InputError: It has no labels.
    """
    if os.path.realpath(masks_folder(folder)) == os.path.realpath(truths):
        raise UsageError(
            "argument `predicted` and argument `truths` are the same folder",
            "Set argument `truths` to the folder of the truth masks.",
        )
    if not has_run(folder):
        yield _Masks(refs=find_masks(folder).refs, max_pixels=max_pixels)
        return
    with open_runs(folder, ended=False, max_pixels=max_pixels) as (run,):
        refuse_raster(run.info)
        yield _RunLabels(refs=[image.ref(None) for image in run.images()], run=run)


def masks_folder(folder: Path) -> Path:
    """Return the folder of masks: `folder` itself, or its masks/ if it is a run's. Raises InputError if it is not a folder."""
    if not is_folder(folder):
        raise InputError(f"{folder}: {'not a folder' if is_file(folder) else 'no such folder'}", _PRED)
    refuse_parts(folder)
    refuse_shards(folder)
    return folder / _MASKS if has_run(folder) else folder


def find_masks(folder: Path) -> Found:
    """Find the masks in a folder. Raises InputError if it has no masks."""
    try:
        found = inputs.found_images([folder], None, inputs.Ignored(None))
    except InputError as error:
        raise InputError(error.message.replace("no images", "no masks", 1), _PRED) from error
    inputs.check_listed(found)
    if _names(folder) == NAMES[0]:
        return found
    # The name of such a mask is the full name of its image, plus a suffix.
    return replace(found, refs=tuple(ImageRef(ref.path, ref.relative.with_suffix("")) for ref in found.refs))


def _record_folders(folder: Path) -> list[Path]:
    """Return the folders that may contain the records of the run that wrote the masks."""
    # Records beside any folder but masks/ describe other masks.
    return [folder, folder.absolute().parent] if folder.absolute().name == _MASKS else [folder]


def _names(folder: Path) -> str:
    """Return the `FileOptions.names` of the run that wrote the masks."""
    folders = _record_folders(folder)
    infos = (info for record in folders if (info := find_run(record)) is not None)
    return next((info.spec.files.names for info in infos), NAMES[0])


def names_of(folder: Path, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of classes 1..N: the given names, or the names that the run wrote beside the masks.

    Raises:
        UsageError: If no names are known, or the given names differ from the run's names in number or order, so that ids would
            mean different classes.
        InputError: If no names are given, and the run's names cannot be read.
    """
    if given is None:
        return names_beside(folder)
    try:
        written = names_beside(folder)
    except (UsageError, InputError):  # masks of another tool
        return tuple(given)
    if len(given) != len(written):
        raise UsageError(
            f"got {pluralize(len(given), 'class', 'classes')}, but the masks in {folder} have {len(written)}: "
            f"{join_first(written, 6)}",
            "Leave out argument `classes` and argument `vocabulary` to use the run's classes. To score with argument `layout`, "
            "label with the vocabulary of that name.",
        )
    if in_other_order(given, written):
        raise UsageError(
            f"the masks in {folder} have the classes in a different order: {', '.join(written)}",
            "Leave out argument `classes` and argument `vocabulary` to use the run's classes. The truth must have the same order.",
        )
    return tuple(given)


def in_other_order(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return True if both lists have the same names in a different order."""
    first, second = [name.casefold() for name in names], [name.casefold() for name in others]
    return first != second and sorted(first) == sorted(second)


def names_beside(folder: Path) -> tuple[str, ...]:
    """Read the class names from classes.json in a folder, or beside the folder if it is called masks.

    Raises UsageError if the file is missing, InputError if it is invalid.
    """
    path = next(
        (parent / CLASSES_FILE for parent in _record_folders(folder) if (parent / CLASSES_FILE).is_file()), None
    )
    if path is None:
        raise UsageError(
            f"the masks in {folder} have no {CLASSES_FILE} that names their ids",
            "Set the classes with argument `classes`, argument `vocabulary` or argument `layout`.",
        )
    try:
        classes = names_by_id(parse(read_regular(path)))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a {CLASSES_FILE} of tipsseg", _SET_CLASSES) from error
    if not classes:
        raise InputError(f"{path}: no classes", _SET_CLASSES)
    _refuse_other_names(path, classes)
    return tuple(name for _, name in classes)


def _refuse_other_names(path: Path, classes: Sequence[tuple[int, str]]) -> None:
    """Raise InputError if the run beside a classes.json has different names for the ids."""
    info = find_run(path.parent)
    for fault in () if info is None else class_faults(classes, info.names):
        raise InputError(f"{path}: {fault}", f"{OTHER_CLASSES} {_SET_CLASSES}")
