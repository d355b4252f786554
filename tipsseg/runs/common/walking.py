"""Search folders for images: each file once, without the outputs of runs."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath, PurePosixPath

from tipsseg.address import is_url
from tipsseg.errors import ImageError, InputError, UsageError
from tipsseg.formats import image_folders
from tipsseg.images.pillow import image_extensions
from tipsseg.images.skipped import Skipped
from tipsseg.images.sources.access import list_members
from tipsseg.images.sources.address import ARCHIVES, CONTAINERS, VIDEOS, container_of, real_path, suffix_of
from tipsseg.images.sources.remote import list_folder
from tipsseg.options.every import EVERY_HINT, Every
from tipsseg.options.shard import Shard
from tipsseg.run.names import NameKey
from tipsseg.run.results import Failed
from tipsseg.run.shards import SHARDS_FOLDER, shards_in
from tipsseg.types import ImageRef, name_order, printable_path
from tipsseg.util.files import describe_error

#: The file that marks a folder written by `tipsseg report`; such a folder is not searched.
REPORT_FILE = "report.json"

PERMISSIONS = "Check the path and its permissions."

_OPEN_HINT = "Download or write the file again, or remove it."


class Walker:
    """Turn paths into images, each file once.

    Attributes:
        skipped: Files without an image extension, in folders.
        outputs: Folders that were not searched, because they contain, or will contain, outputs of a run.
    """

    def __init__(self, output: Path | None, apart: Path | None, every: Every | None = None) -> None:
        self.skipped = Skipped()
        self.outputs: list[Path] = []
        self._output = output
        self._apart = apart
        self._every = every
        self._extensions = image_extensions()
        self._folders: set[tuple[int, int]] = set()
        self._files: set[str] = set()

    def images(self, path: Path, relative: PurePosixPath, folder: bool) -> list[ImageRef | Failed]:
        """Return a file, or the images of a folder or a container sorted by name; each image once.

        Names begin with `relative`. The name of a container loses its suffix.
        """
        if folder:
            walk = self._list if is_url(path) else self._walk
            return sorted(walk(path, relative), key=by_name)
        if not self.is_new(real_path(path)):
            return []
        if suffix_of(path) in CONTAINERS and container_of(path) is None:
            return sorted(self._open(path, relative, named=True), key=by_name)
        return [ImageRef(path, relative)]

    def is_new(self, file: str) -> bool:
        """Return True for the first call with a file."""
        if file in self._files:
            return False
        self._files.add(file)
        return True

    def _walk(self, top: Path, relative: PurePosixPath) -> Iterator[ImageRef | Failed]:
        # Once per folder: in a stream, the run may have created its output folder by now.
        output = None if self._output is None else _identity(self._output)
        apart = None if self._apart is None else _identity(self._apart)
        folders = [(top, relative)]
        # Linked folders come last: if a link leads back into the tree, images get their names in the tree itself.
        links: deque[tuple[Path, PurePosixPath]] = deque()
        while folders or links:
            folder, name = folders.pop() if folders else links.popleft()
            try:
                identity = _identity_of(folder)
                if identity in self._folders:
                    continue
                self._folders.add(identity)
                entries = _scan(folder)
            except FileNotFoundError:  # removed meanwhile
                continue
            except OSError as error:
                yield refuse(folder, name, f"cannot list this folder: {describe_error(error)}")
                continue
            real = os.path.realpath(folder)
            ours = image_folders() if identity == output or is_output(folder) else frozenset[str]()
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                kind = _kind(entry)
                if kind == "folder":
                    path = folder / entry.name
                    inner = _identity(path)
                    if entry.name in ours or (inner is not None and inner == output) or _names_tool(path / REPORT_FILE):
                        self.outputs.append(path)
                    elif inner is None or inner != apart:
                        (links if entry.is_symlink() else folders).append((path, name / entry.name))
                elif entry.name in ours:
                    continue
                elif kind == "other":
                    self.skipped.add(entry.name, file=False)
                # Two linked files of different names are two images; hence the folder is resolved, not the file.
                elif self._takes(entry.name) and self.is_new(str(PurePath(real, entry.name))):
                    yield from self._open(folder / entry.name, name / entry.name)

    def _list(self, top: Path, relative: PurePosixPath) -> Iterator[ImageRef | Failed]:
        """Yield the images in a remote folder."""
        try:
            for name in list_folder(top):
                hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
                if not hidden and self._takes(name) and self.is_new(str(top / name)):
                    yield from self._open(top / name, relative / name)
        except OSError as error:
            yield refuse(top, relative, f"cannot list this folder: {describe_error(error)}")

    def _takes(self, name: str) -> bool:
        """Return True for a file in a folder that is an image or a container; count others."""
        suffix = suffix_of(PurePath(name))
        if suffix in self._extensions or (suffix in CONTAINERS and (suffix not in VIDEOS or self._every is not None)):
            return True
        self.skipped.add(name, file=True)
        return False

    def _open(self, path: Path, relative: PurePosixPath, *, named: bool = False) -> Iterator[ImageRef | Failed]:
        """Yield a file, or the images in a container. Raise UsageError for a video without an interval if the user `named` it."""
        if suffix_of(path) not in CONTAINERS:
            yield ImageRef(path, relative)
            return
        if named and self._every is None and suffix_of(path) in VIDEOS:
            raise UsageError(f"{printable_path(path)}: a video needs the interval of its frames", EVERY_HINT)
        name = relative.with_suffix("")
        try:
            for member in list_members(path, self._every):
                if member.fault:
                    error = ImageError(path / member.name, member.fault, _OPEN_HINT)
                    yield Failed(ImageRef(path / member.name, name / member.name), error)
                elif suffix_of(path) in ARCHIVES and suffix_of(PurePath(member.name)) not in self._extensions:
                    self.skipped.add(member.name, file=True)
                else:
                    yield ImageRef(path / member.name, name / member.name)
        except (OSError, ValueError) as error:
            yield Failed(ImageRef(path, relative), ImageError(path, describe_error(error), _OPEN_HINT))


def is_output(folder: Path) -> bool:
    """Return True if a run of tipsseg, or a shard, wrote into a folder."""
    shards: list[Shard] = []
    with suppress(InputError):  # reported when the folder is searched for images
        shards = shards_in(folder)
    records = ("run.json", "eval.json", *(f"{SHARDS_FOLDER}/{shard.folder}/run.json" for shard in shards))
    return any(_names_tool(folder / name) for name in records)


class OutputFolders:
    """The folders that a run writes pictures to."""

    def __init__(self, output: Path | None, key: NameKey) -> None:
        self._key = key
        self._folders = [] if output is None else [output / name for name in sorted(image_folders())]
        self._starts = [key(os.path.join(os.path.realpath(folder), "")) for folder in self._folders]  # noqa: PTH118

    def conflict_with(self, path: Path) -> str:
        """Return the reason to refuse an input in one of these folders; "" for other inputs."""
        real = self._key(real_path(path))
        for folder, start in zip(self._folders, self._starts, strict=True):
            if real.startswith(start):
                return f"an input in {folder}, which this run writes to"
        return ""


def refuse(path: Path, relative: PurePosixPath, reason: str) -> Failed:
    return Failed(ImageRef(path, relative), ImageError(path, reason, PERMISSIONS))


def by_name(image: ImageRef | Failed) -> tuple[str, ...]:
    """Return the key that sorts images by name, folder by folder."""
    return name_order(image.name)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "folder", "file" or "other" (pipes, sockets, devices); a broken link counts as a file, so that the error names it."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "other"
    except OSError:  # for example a link to itself
        return "file"


def _identity_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(OSError, ValueError):
        return _identity_of(path)
    return None


def _names_tool(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 20)
    except OSError:
        return False
    return re.search(r'"tool"\s*:\s*"tipsseg"', text) is not None
