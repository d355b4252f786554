"""The images that failed: errors.jsonl, which exists only if there are any. Each shard has a file of its own."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tipsseg.folder.entry import ERRORS_FILE, Failure, read_failure
from tipsseg.folder.lock import is_locked
from tipsseg.options.values import Shard
from tipsseg.types import name_order
from tipsseg.util.files import atomic_write, open_regular, remove_file


class Failures:
    """The failures of a folder, by image.

    Attributes:
        changed: True once this process has changed them.
    """

    def __init__(self, folder: Path, shard: Shard | None = None) -> None:
        self._folder = folder
        self._path = folder / (ERRORS_FILE if shard is None else f"errors-{shard.folder}.jsonl")
        self._found, self.changed = _read(self._path), False
        self._new = set[str]()  # of this run

    def __len__(self) -> int:
        return len(self._found)

    def all(self) -> list[Failure]:
        """Return the failures, sorted by image name."""
        return [self._found[name] for name in sorted(self._found, key=name_order)]

    def add(self, failure: Failure) -> None:
        self._found[failure.image] = failure
        self._new.add(failure.image)
        self.changed = True

    def mend(self, image: str) -> None:
        """Remove the failure of an image, if it has one."""
        self.changed |= self._found.pop(image, None) is not None

    def join(self) -> None:
        """Take over the failures of the shards that have ended, and remove their files.

        On a file system without locks, all must have ended.
        """
        for path in sorted(self._folder.glob("errors-*-of-*.jsonl")):
            if not is_locked(self._folder, path.stem.removeprefix("errors-")):
                found = _read(path)
                self._found |= found
                self._new |= found.keys()
                self.write()
                remove_file(path)

    def forget_old(self) -> None:
        """Remove the failures of earlier runs that no longer apply (see `Failure.may_last`)."""
        old = [failure for name, failure in self._found.items() if name not in self._new]
        for name in [failure.image for failure in old if not failure.may_last]:
            self.mend(name)

    def write(self) -> None:
        """Write the file, or remove it if no image failed. Raise OutputError if that fails."""
        if self._found:
            atomic_write(self._path, b"".join(failure.line() + b"\n" for failure in self.all()))
        else:
            remove_file(self._path)
        self.changed = False


def _read(path: Path) -> dict[str, Failure]:
    """Return the failures in a file by image; lines that are invalid are left out."""
    lines = list[bytes]()
    with suppress(FileNotFoundError), open_regular(path) as file:
        lines = list(file)
    return {failure.image: failure for line in lines if (failure := read_failure(line)) is not None}
