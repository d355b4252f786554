"""Find the images of a run by a list of their paths."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tipsseg.errors import ImageError
from tipsseg.run.entry import Entry
from tipsseg.types import printable_path
from tipsseg.util.files import actual_name


def find_only(entries: Iterable[Entry], paths: Iterable[Path], images: Path | None) -> tuple[set[str], list[Path]]:
    """Return the names of the images at these paths, and the paths that match no labelled image.

    Args:
        entries: The labelled images.
        paths: Current paths of images, their paths when they were labelled, or their names in the run.
        images: The folder of the images, if they have moved.
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
        # Try the absolute path first: a name in the run may also be another file below the working directory.
        name = by_path.get(_absolute(path)) or by_path.get(printable_path(path))
        if name is None:
            unknown.append(path)
        else:
            names.add(name)
    return names, unknown


def unlabelled_error(path: Path, output: Path) -> ImageError:
    return ImageError(path, f"not labelled in {output}", "Remove it from the list in argument `only`.")


def _absolute(path: Path) -> str:
    return printable_path(Path(os.path.abspath(path)))  # noqa: PTH100  must not resolve links, as in the manifest
