"""A list of images that a command on an output folder is restricted to: which images of the run its paths are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.store.manifest import ManifestEntry
from tipsseg.types import printable_path
from tipsseg.util.record_paths import actual_name


def find_only(
    entries: Iterable[ManifestEntry], paths: Iterable[Path], images: Path | None
) -> tuple[set[str], list[Path]]:
    """Return the names of the images that have these paths, and the paths of no labelled image.

    Args:
        entries: The labelled images.
        paths: Each where the image is, or where it was when it was labelled, or its name in the run.
        images: The folder that the images' names begin at; None: where the images were.
    """
    by_path: dict[str, str] = {}
    for entry in entries:
        by_path.setdefault(entry.image, entry.image)
        by_path[entry.path] = entry.image
        if images is not None:
            by_path[_absolute(images / actual_name(entry.image))] = entry.image
    names: set[str] = set()
    unknown: list[Path] = []
    for path in paths:
        # An absolute path first: a name in the run may be that of another file below the current folder.
        name = by_path.get(_absolute(path)) or by_path.get(printable_path(path))
        if name is None:
            unknown.append(path)
        else:
            names.add(name)
    return names, unknown


def not_labelled(path: Path, output: Path) -> ImageError:
    """Return the error for a path of no labelled image."""
    return ImageError(path, f"not labelled in {output}", "Leave it out of argument `only`.")


def _absolute(path: Path) -> str:
    return printable_path(Path(os.path.abspath(path)))  # noqa: PTH100  links stay as they are, as in the manifest
