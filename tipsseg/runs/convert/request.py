"""Check that a folder has the labels and images that a conversion needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tipsseg.address import is_url
from tipsseg.errors import InputError, UsageError
from tipsseg.formats import FORMATS, RASTER_FORMATS, check_overlaps, has_image_files
from tipsseg.images.sources.address import below
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
    """Raise InputError if a run cannot be converted into these formats, or if two images would share a file."""
    begun = conversion_begun(run.info, run.records)
    if not set(begun) <= set(formats):
        raise broken_conversion(run.output, begun)
    refuse_rasters(formats)
    run.refuse_raster()
    sources = label_sources()
    if run.info.spec.options.overlap:
        check_overlaps(formats)
        sources = tuple(name for name in sources if FORMATS[name].overlaps)
    needs = [(_LABELS, sources)]
    if asked := [name for name in formats if FORMATS[name].needs_top_classes]:
        needs.append(("patch scores", tuple(dict.fromkeys((*archives(), *asked)))))
    if asked := [name for name in formats if FORMATS[name].needs_confidence]:
        needs.append(("confidences", tuple(dict.fromkeys((*archives(), *asked)))))
    missing: dict[str, list[str]] = {}
    names = OutputNames(name_key(run.output), run.context.files.names, formats)
    shared = ""
    for entry in run.entries():
        # Lists of objects cannot store ignored pixels.
        unfit = {name for name in label_sources() if FORMATS[name].labels == "objects" and entry.numbers.ignored}
        for what, sources in needs:
            if not (set(sources) - (unfit if what == _LABELS else set())) & set(entry.formats):
                missing.setdefault(what, []).append(entry.image)
        if has_image_files(formats):
            shared = shared or names.take(ImageRef(Path(entry.image), PurePosixPath(entry.image)))
    for what, sources in needs:
        if what in missing:
            first, *more = missing[what]
            others = f" and {len(more)} more" if more else ""
            raise InputError(
                f"{run.output}: no {what} for {first}{others}",
                f"Run the command that made the folder again with one of these formats added: {', '.join(sources)}.",
            )
    if shared:
        raise InputError(f"{run.output}: {shared}", names.hint)


def refuse_rasters(formats: Sequence[str]) -> None:
    """Raise UsageError for formats of rasters."""
    for name in formats:
        if name in RASTER_FORMATS:
            raise UsageError(f"only tipsseg label writes {name}, a format of rasters", "Use another format.")


def set_fraction(changes: RunChanges, formats: Sequence[str], val_fraction: float | None) -> None:
    """Change a run's `val_fraction`, unless it is None. Raises UsageError if none of the formats splits images."""
    if val_fraction is None:
        return
    splitting = [name for name, form in FORMATS.items() if form.splits_train_val]
    if not set(splitting) & set(formats):
        names = " or ".join(splitting)
        raise UsageError(
            f"argument `val_fraction` needs the format {names}", f"Remove it, or add {names} to the formats."
        )
    changes.set_files(replace(changes.run.context.files, val_fraction=val_fraction))


def image_root(run: Run, formats: Sequence[str], images: Path | None) -> Path | None:
    """Return the image folder, or None if there are several. Raises InputError if a format needs it, but it is missing."""
    recorded = run.info.image_root
    root = images or (None if recorded is None else actual_path(Path(), recorded))
    needing = [name for name in formats if FORMATS[name].needs_image]
    if needing and (root is None or not (is_url(root) or is_folder(root))):
        reason = "the images are in several folders" if root is None else f"{root}: no such folder"
        raise InputError(
            f"{reason}, but {', '.join(needing)} {'needs' if len(needing) == 1 else 'need'} the images",
            "Set the folder of the images with argument `images`.",
        )
    return root


def image_ref(entry: ManifestEntry, output: Path, root: Path | None, *, anywhere: bool) -> ImageRef:
    """Return the image of an entry, whose name may contain escaped bytes (see `types.printable_path`).

    `anywhere` looks for an image that is not below `root` at its recorded address too.
    """
    name = entry.image
    if actual_name(name) != name and not _exists(name, entry, output, root):
        name = actual_name(name)
    return ImageRef(below(root or Path(), name, entry.path if anywhere else ""), PurePosixPath(name))


def _exists(name: str, entry: ManifestEntry, output: Path, root: Path | None) -> bool:
    paths = [output / file for file in entry.files.values()]
    paths += [] if root is None else [root / name]
    return any(os.path.lexists(path) for path in paths)
