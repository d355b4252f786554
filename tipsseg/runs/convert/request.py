"""What a conversion was asked for, and whether the folder has what that needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tipsseg.errors import InputError, UsageError
from tipsseg.formats import FORMATS, has_image_files
from tipsseg.store.change_run import RunChanges
from tipsseg.store.file_names import OutputNames, name_key
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.open_run import Run, broken_conversion, conversion_begun
from tipsseg.store.stored_image import archives, label_sources
from tipsseg.types import ImageRef
from tipsseg.util.files import is_folder
from tipsseg.util.record_paths import actual_name, actual_path

_LABELS = "labels"


def refuse_unfit(run: Run, formats: Sequence[str]) -> None:
    """Raise InputError if the labels of a run cannot be converted into these formats, or two images would have one file."""
    begun = conversion_begun(run.info, run.records)
    if not set(begun) <= set(formats):
        raise broken_conversion(run.output, begun)
    needs = [(_LABELS, label_sources())]
    if asked := [name for name in formats if FORMATS[name].needs_top_classes]:
        needs.append(("scores of patches", tuple(dict.fromkeys((*archives(), *asked)))))
    if asked := [name for name in formats if FORMATS[name].needs_confidence]:
        needs.append(("confidences", tuple(dict.fromkeys((*archives(), *asked)))))
    lacking: dict[str, list[str]] = {}
    names = OutputNames(name_key(run.output), run.context.files.names, formats)
    shared = ""
    for entry in run.entries():
        # Lists of objects have no ignored pixels.
        unfit = {name for name in label_sources() if FORMATS[name].labels == "objects" and entry.numbers.ignored}
        for what, sources in needs:
            if not (set(sources) - (unfit if what == _LABELS else set())) & set(entry.formats):
                lacking.setdefault(what, []).append(entry.image)
        if has_image_files(formats):
            shared = shared or names.take(ImageRef(Path(entry.image), PurePosixPath(entry.image)))
    for what, sources in needs:
        if what in lacking:
            first, *more = lacking[what]
            others = f" and {len(more)} more" if more else ""
            raise InputError(
                f"{run.output}: it does not hold the {what} of {first}{others}",
                f"Run the command that made it again, with one of these formats beside its own: {', '.join(sources)}.",
            )
    if shared:
        raise InputError(f"{run.output}: {shared}", names.hint)


def set_fraction(changes: RunChanges, formats: Sequence[str], val_fraction: float | None) -> None:
    """Let images be divided by another `val_fraction`; None: as before. Raises UsageError."""
    if val_fraction is None:
        return
    dividing = [name for name, form in FORMATS.items() if form.splits_train_val]
    if not set(dividing) & set(formats):
        names = " or ".join(dividing)
        raise UsageError(
            f"argument `val_fraction` is for the format {names}", f"Leave it out, or name {names} among the formats."
        )
    changes.set_files(replace(changes.run.context.files, val_fraction=val_fraction))


def image_root(run: Run, formats: Sequence[str], images: Path | None) -> Path | None:
    """Return the folder that the names of the images begin at. Raises InputError if it is needed and not there."""
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
    """Return the image of an entry, whose name may spell out bytes, see `types.printable_path`."""
    name = entry.image
    if actual_name(name) != name and not _as_written(name, entry, output, root):
        name = actual_name(name)
    return ImageRef((root or Path()) / name, PurePosixPath(name))


def _as_written(name: str, entry: ManifestEntry, output: Path, root: Path | None) -> bool:
    places = [output / file for file in entry.files.values()]
    places += [] if root is None else [root / name]
    return any(os.path.lexists(place) for place in places)
