"""A list of images that a command on an output folder is restricted to: which images of the run its paths are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tipsseg.store.manifest import MANIFEST_FILE, ManifestEntry, read_entries
from tipsseg.types import printable_path
from tipsseg.util.record_paths import actual_name


def find_only(
    entries: Iterable[ManifestEntry], paths: Iterable[Path], images: Path | None, unknown: Callable[[Path], object]
) -> set[str]:
    """The names of the images that have these paths.

    Args:
        entries: The labelled images.
        paths: Each where the image is, or where it was when it was labelled, or its name in the run.
        images: The folder that the images' names begin at; None: where the images were.
        unknown: Is called with each path of no labelled image, in their order.
    """
    by_path: dict[str, str] = {}
    for entry in entries:
        by_path.setdefault(entry.image, entry.image)
        by_path[entry.path] = entry.image
        if images is not None:
            by_path[_absolute(images / actual_name(entry.image))] = entry.image
    found = set()
    for path in paths:
        # An absolute path first: a name in the run may be that of another file below the current folder.
        name = by_path.get(_absolute(path)) or by_path.get(printable_path(path))
        if name is None:
            unknown(path)
        else:
            found.add(name)
    return found


def only_images(
    output: Path, paths: Iterable[Path] | None, images: Path | None, unknown: Callable[[Path], object]
) -> set[str] | None:
    """The names of the images of an output folder that have these paths, see `find_only`; None: all.

    Where there is no list, or no manifest, that is all: what is no output folder is refused by whoever reads it. Raises OutputError
    for a manifest that cannot be read.
    """
    if paths is None or not os.path.lexists(output / MANIFEST_FILE):
        return None
    return find_only(read_entries(output).values(), paths, images, unknown)


def _absolute(path: Path) -> str:
    return printable_path(Path(os.path.abspath(path)))  # noqa: PTH100  links stay as they are, as in the manifest
