"""Files of images of runs that are joined: each is copied to its place in the target, and none replaces another."""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath

from tipsseg.errors import OutputError
from tipsseg.store.manifest import ManifestEntry
from tipsseg.store.reader import FinishedRun, image_paths, link_paths, unreadable
from tipsseg.types import ImageRef
from tipsseg.util.files import open_regular
from tipsseg.util.ownership import Ownership


def copy_image_files(run: FinishedRun, entry: ManifestEntry, target: Path, ownership: Ownership) -> None:
    """Copy the files of an image as they are, but for those that are copied already. Raises InputError and OutputError."""
    ref = ImageRef(Path(), PurePosixPath(entry.image))
    links = set(link_paths(run, entry))
    for path, place in places(run, entry, target):
        if is_copied(path, place):
            continue
        if path in links:
            ownership.link(replace(ref, path=path), place, ours=False)
            continue
        try:
            status, file = path.stat(), open_regular(path)
        except OSError as error:
            raise unreadable(path, error, run.output) from error
        with file:
            ownership.copy(ref, file, place, (status.st_atime_ns, status.st_mtime_ns))


def is_copied(path: Path, place: Path) -> bool:
    """Whether a file of an image has been copied to its place. Raises OutputError where another file is there."""
    if not os.path.lexists(place):
        return False
    if not _is_same(path, place):
        raise orphan_error(place)
    return True


def places(run: FinishedRun, entry: ManifestEntry, target: Path) -> Iterator[tuple[Path, Path]]:
    """The files of an image, each with its place in `target`; nothing where they are in their places already."""
    if run.output != target:
        # Where the image is gone there is nothing to link to.
        links = (path for path in link_paths(run, entry) if path.exists())
        for path in chain(links, image_paths(run, entry)):
            yield path, target / path.relative_to(run.output)


def orphan_error(path: Path) -> OutputError:
    """The OutputError for a file that is not of the run, and would be replaced or removed."""
    return OutputError(
        path,
        "what is there is not of the runs that are joined",
        "Move it away, or merge into another folder with argument `target`.",
    )


def _is_same(path: Path, place: Path) -> bool:
    """Whether a link leads to the same file as another, or a file has the content of another."""
    try:
        if place.is_symlink():
            return path.is_symlink() and place.samefile(path)
        one, other = path.stat(), place.stat()
        if not stat.S_ISREG(other.st_mode) or one.st_size != other.st_size:
            return False
        return one.st_mtime_ns == other.st_mtime_ns or filecmp.cmp(path, place, shallow=False)
    except OSError:
        return False
