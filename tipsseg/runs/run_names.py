"""The names that images have in an output folder, for images that are labelled into it again."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath

from tipsseg.store.manifest import MANIFEST_FILE, parse_entry
from tipsseg.store.run_record import find_run
from tipsseg.types import printable_path
from tipsseg.util.append_log import lines_of
from tipsseg.util.fingerprint import Fingerprint
from tipsseg.util.record_paths import actual_name, actual_path


class RunNames:
    """Names images as the run in a folder named them, wherever a later command would begin their names.

    Attributes:
        root: The folder that the names in the run begin at. None: nothing is labelled yet, or the images are from several folders.
    """

    def __init__(self, state: Path | None) -> None:
        """Read run.json in a state folder; None: no run is gone on with."""
        self._manifest = None if state is None or not _has_content(state / MANIFEST_FILE) else state / MANIFEST_FILE
        before = None if state is None or self._manifest is None else find_run(state)
        noted = None if before is None else before.image_root
        self.root = None if noted is None else actual_path(Path(), noted)

    def find(self, path: Path, name: PurePosixPath) -> PurePosixPath:
        """Return the name of an image in the run: the one it has, or the one that it gets by the root; else `name`.

        An image is known by its path. If the folders were moved, it is known by the end of its path and by its content.
        """
        if self._manifest is None:
            return name
        absolute = Path(os.path.abspath(path))  # noqa: PTH100  Path.resolve follows links
        if self.root is not None and absolute.is_relative_to(self.root):
            return _posix(absolute.relative_to(self.root))
        names, images = self._recorded
        if (recorded := names.get(printable_path(absolute))) is not None:
            return PurePosixPath(recorded if absolute.as_posix().endswith(recorded) else actual_name(recorded))
        if self.root is not None:
            real, root = Path(os.path.realpath(absolute.parent), absolute.name), os.path.realpath(self.root)
            if real.is_relative_to(root):
                return _posix(real.relative_to(root))
        if printable_path(name) in images:  # whether it is that image is known when the folder is open
            return name
        ends = (_posix(PurePath(*absolute.parts[start:])) for start in range(1, len(absolute.parts)))
        return next((end for end in ends if _was_moved(images.get(printable_path(end)), absolute)), name)

    @cached_property
    def _recorded(self) -> tuple[dict[str, str], dict[str, tuple[str, Fingerprint]]]:
        """The names of the labelled images by their paths, and their paths and contents by their names."""
        images: dict[str, tuple[str, Fingerprint]] = {}
        if self._manifest is not None:
            with suppress(OSError):  # told when the folder is opened
                for _, line in lines_of(self._manifest):
                    if (entry := parse_entry(line)) is not None:
                        images[entry.image] = (entry.path, entry.fingerprint)
        return {path: image for image, (path, _) in images.items()}, images


def _has_content(path: Path) -> bool:
    with suppress(OSError):
        return path.stat().st_size > 0
    return False


def _posix(path: PurePath) -> PurePosixPath:
    return PurePosixPath(*path.parts)


def _was_moved(image: tuple[str, Fingerprint] | None, path: Path) -> bool:
    """Whether a file is a labelled image that is not any more where it was."""
    if image is None:
        return False
    before, content = image
    return not os.path.lexists(actual_path(Path(), before)) and content.matches(path)
