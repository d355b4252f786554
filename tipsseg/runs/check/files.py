"""Rules of what else is in an output folder: every per-image file is of one image, and nothing temporary is left."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tipsseg.formats import FORMATS, has_image_files
from tipsseg.formats.base import output_name
from tipsseg.formats.problem import Problem
from tipsseg.runs.check.manifest import Images
from tipsseg.types import printable_path
from tipsseg.util.files import TEMPORARY_PREFIX
from tipsseg.util.ownership import LOG_PREFIX


class Owners:
    """Which image each file is of. Memory grows by a name per image."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, Images]] = {}

    def take(self, runs: Sequence[Images]) -> Iterator[Problem]:
        """Take up all images. Two images whose names differ in the suffix alone are a problem: both would have one file."""
        for images in runs:
            for name in images.formats:
                owner, others = self._owners.setdefault(_stem(name, images), (name, images))
                shared = set(images.formats[name]) & set(others.formats[owner])
                if owner != name and has_image_files(shared):
                    yield Problem(images.path, f"{name}: its files would be those of {owner} too")

    def know(self, name: str, image: PurePosixPath) -> bool:
        """Whether an image of that name, whatever its suffix, has files in format `name`."""
        owner = self._owners.get(printable_path(image.with_suffix("")))
        return owner is not None and name in owner[1].formats[owner[0]]


def find_orphans(output: Path, owners: Owners) -> Iterator[Problem]:
    """Per-image files of no image. Hidden files are passed over, as programs that read masks do."""
    for name, form in FORMATS.items():
        if form.folder is None:
            continue
        for path in _walk(output / form.folder):
            if path.suffix != form.suffix or path.name.startswith("."):
                continue
            relative = PurePosixPath(path.relative_to(output / form.folder).as_posix())
            if form.leaf and relative.parent.name != form.leaf:
                continue
            image = relative.parent.parent / relative.name if form.leaf else relative
            if not owners.know(name, image):
                yield Problem(path, "no image in the manifest has this file")


def find_temporaries(output: Path) -> Iterator[Problem]:
    """Temporary files and folders that a process left when it was killed."""
    for folder, folders, names in os.walk(output):
        folders.sort()
        for name in sorted((*folders, *names)):
            if name.startswith(TEMPORARY_PREFIX) and not name.startswith(LOG_PREFIX):  # what a log has, no record has
                yield Problem(Path(folder, name), "a process that was killed left this; remove it")
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY_PREFIX)]


def _stem(name: str, images: Images) -> str:
    return str(output_name(PurePosixPath(name), images.run.files.names))


def _walk(top: Path) -> Iterator[Path]:
    """The files below a folder, in a fixed order."""
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            yield Path(folder, name)
