"""Copy per-image files into the target of a merge, without replacing other files."""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tipsseg.errors import OutputError, RecordError
from tipsseg.store.ownership import Ownership
from tipsseg.store.results import link_of
from tipsseg.store.spec import check_hint
from tipsseg.store.stored_image import RunImage
from tipsseg.types import ImageRef
from tipsseg.util.files import describe_error, open_regular
from tipsseg.util.record_paths import actual_path


def copy_image_files(image: RunImage, target: Path, ownership: Ownership) -> None:
    """Copy an image's files, except those already copied. Raises InputError if a file cannot be read, or OutputError if written."""
    ref = ImageRef(Path(), PurePosixPath(image.entry.image))
    links = set(_links(image))
    for path, place in places(image, target):
        if is_copied(path, place):
            continue
        if path in links:
            ownership.link(ImageRef(path, ref.relative), place, ours=False)
            continue
        try:
            status, file = path.stat(), open_regular(path)
        except OSError as error:
            raise RecordError(path, describe_error(error), check_hint(image.context.output)) from error
        with file:
            ownership.copy(ref, file, place, (status.st_atime_ns, status.st_mtime_ns))


def is_copied(path: Path, place: Path) -> bool:
    """Return True if a file was already copied to `place`. Raises OutputError if another file is in the way."""
    if not os.path.lexists(place):
        return False
    if not _is_same(path, place):
        raise orphan_error(place)
    return True


def places(image: RunImage, target: Path) -> Iterator[tuple[Path, Path]]:
    """Yield an image's files with their paths in `target`; nothing if the run is in the target."""
    output = image.context.output
    if output != target:
        # Skip links to images that were removed.
        for path in (*(path for path in _links(image) if path.exists()), *files(image)):
            yield path, target / path.relative_to(output)


def files(image: RunImage) -> list[Path]:
    return [actual_path(image.context.output, place) for place in image.entry.files.values()]


def _links(image: RunImage) -> list[Path]:
    found = (link_of(image.entry, name, image.context.files) for name in image.entry.formats)
    return [actual_path(image.context.output, str(link)) for link in found if link is not None]


def orphan_error(path: Path) -> OutputError:
    """Return the error for a file that would be replaced or removed but does not belong to the runs."""
    return OutputError(
        path,
        "it does not belong to the runs to join",
        "Move it away, or merge into another folder with argument `target`.",
    )


def _is_same(path: Path, place: Path) -> bool:
    """Return True if two links lead to the same file, or two files have the same content."""
    try:
        if place.is_symlink():
            return path.is_symlink() and place.samefile(path)
        one, other = path.stat(), place.stat()
        if not stat.S_ISREG(other.st_mode) or one.st_size != other.st_size:
            return False
        return one.st_mtime_ns == other.st_mtime_ns or filecmp.cmp(path, place, shallow=False)
    except OSError:
        return False
