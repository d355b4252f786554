"""Rules of what else is in an output folder: no pictures but those of the images, each of one image, and nothing temporary."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tipsseg.check_manifest import Images
from tipsseg.check_problem import Problem
from tipsseg.files import TEMPORARY_PREFIX
from tipsseg.records import printable_path
from tipsseg.writers import FORMATS, SUFFIXES


class Owners:
    """Which image each picture is of. In memory is a name an image."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, Images]] = {}

    def take(self, runs: Sequence[Images]) -> Iterator[Problem]:
        """Take all images up; a second one of a name without its suffix is a problem, as both would have one picture."""
        for images in runs:
            for name in images.formats:
                owner, _ = self._owners.setdefault(_stem(name), (name, images))
                if owner != name:
                    yield Problem(images.path, f"{name}: its pictures would be those of {owner} too")

    def know(self, folder: str, relative: PurePosixPath) -> bool:
        """Whether a file in one of the folders of pictures is the picture of an image."""
        owner = self._owners.get(_stem(printable_path(relative)))
        return owner is not None and any(FORMATS[name].folder == folder for name in owner[1].formats[owner[0]])


def find_strangers(output: Path, owners: Owners) -> Iterator[Problem]:
    """Pictures that are of no image. Hidden files are passed over, as by whoever reads masks."""
    for folder, suffix in SUFFIXES.items():
        for path in _walk(output / folder):
            relative = PurePosixPath(path.relative_to(output / folder).as_posix())
            if path.suffix == suffix and not path.name.startswith(".") and not owners.know(folder, relative):
                yield Problem(path, "no image in the manifest has this file")


def find_temporaries(output: Path) -> Iterator[Problem]:
    """What a process that was killed left behind."""
    for folder, folders, names in os.walk(output):
        folders.sort()
        for name in sorted((*folders, *names)):
            if name.startswith(TEMPORARY_PREFIX):
                yield Problem(Path(folder, name), "a process that was killed left this; remove it")
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY_PREFIX)]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _walk(top: Path) -> Iterator[Path]:
    """The files below a folder, in a fixed order."""
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            yield Path(folder, name)
