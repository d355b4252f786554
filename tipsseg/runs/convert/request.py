"""What a conversion was asked for, and whether the folder has what that needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError, UsageError
from tipsseg.formats import FORMATS, has_image_files
from tipsseg.store.file_names import OutputNames, name_key
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.reader import FinishedRun, broken_conversion, conversion_begun, read_entries
from tipsseg.store.stored_image import archives, label_sources
from tipsseg.store.writing import RunContext
from tipsseg.types import ImageRef
from tipsseg.util.files import is_folder
from tipsseg.util.record_paths import actual_name, actual_path

_LABELS = "labels"


def refuse_unfit(run: FinishedRun, context: RunContext, formats: Sequence[str]) -> None:
    """Raise InputError where the labels of a run cannot be converted into these formats."""
    _refuse_others_begun(run, formats)
    _refuse_unknown(run, formats)
    _refuse_shared(run, context, formats)


def with_fraction(run: FinishedRun, formats: Sequence[str], val_fraction: float | None) -> FinishedRun:
    """The run with another `val_fraction` in its options, where there is one. Raises UsageError and InputError."""
    if val_fraction is None:
        return run
    dividing = [name for name, form in FORMATS.items() if form.splits_train_val]
    if not set(dividing) & set(formats):
        names = " or ".join(dividing)
        raise UsageError(
            f"argument `val_fraction` is for the format {names}", f"Leave it out, or name {names} among the formats."
        )
    spec = run.info.spec
    files = replace(spec.files, val_fraction=val_fraction)
    return replace(run, info=replace(run.info, spec=replace(spec, files=files)))


def _refuse_others_begun(run: FinishedRun, formats: Sequence[str]) -> None:
    """Raise InputError where a conversion into other formats was broken off: the manifest has them, and not all files do."""
    begun = conversion_begun(run.info)
    if not set(begun) <= set(formats):
        raise broken_conversion(run.output, begun)


def _refuse_unknown(run: FinishedRun, formats: Sequence[str]) -> None:
    """Raise InputError where the files of some image do not have what the formats need."""
    needs = [(_LABELS, label_sources())]
    if asked := [name for name in formats if FORMATS[name].needs_top_classes]:
        needs.append(("scores of patches", tuple(dict.fromkeys((*archives(), *asked)))))
    if asked := [name for name in formats if FORMATS[name].needs_confidence]:
        needs.append(("confidences", tuple(dict.fromkeys((*archives(), *asked)))))
    lacking: dict[str, list[str]] = {}
    for entry in read_entries(run):
        # Lists of objects have no ignored pixels.
        unfit = {name for name in label_sources() if FORMATS[name].labels == "objects" and entry.numbers.ignored}
        for what, sources in needs:
            if not (set(sources) - (unfit if what == _LABELS else set())) & set(entry.formats):
                lacking.setdefault(what, []).append(entry.image)
    for what, sources in needs:
        if what in lacking:
            first, *more = lacking[what]
            others = f" and {len(more)} more" if more else ""
            raise InputError(
                f"{run.output}: it does not hold the {what} of {first}{others}",
                f"Run the command that made it again, with one of these formats beside its own: {', '.join(sources)}.",
            )


def _refuse_shared(run: FinishedRun, context: RunContext, formats: Sequence[str]) -> None:
    """Raise InputError where two images would have one file."""
    if not has_image_files(formats):
        return
    names = OutputNames(name_key(context.output), context.files.names, formats)
    for image in dict.fromkeys(entry.image for entry in read_entries(run)):
        if shared := names.take(ImageRef(Path(image), PurePosixPath(image))):
            raise InputError(f"{run.output}: {shared}", names.hint)


def image_root(run: FinishedRun, formats: Sequence[str], images: Path | None) -> Path | None:
    """The folder that the names of the images begin at. Raises InputError where it is needed and not there."""
    noted = run.info.image_root
    root = images or (None if noted is None else actual_path(Path(), noted))
    needing = [name for name in formats if FORMATS[name].needs_image]
    if needing and (root is None or not is_folder(root)):
        where = "the images are from several folders" if root is None else f"{root}: no such folder"
        raise InputError(
            f"{where}, and {', '.join(needing)} cannot do without the images",
            "Give the folder that the images' names begin at with argument `images`.",
        )
    return root


def image_ref(entry: ManifestEntry, output: Path, root: Path | None) -> ImageRef:
    """The image of an entry, whose name may spell out bytes, see `types.printable_path`."""
    name = entry.image
    if actual_name(name) != name and not _as_written(name, entry, output, root):
        name = actual_name(name)
    return ImageRef((root or Path()) / name, PurePosixPath(name))


def _as_written(name: str, entry: ManifestEntry, output: Path, root: Path | None) -> bool:
    places = [output / file for file in entry.files.values()]
    places += [] if root is None else [root / name]
    return any(os.path.lexists(place) for place in places)
