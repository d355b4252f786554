"""Find images: in paths, folders and containers, or in a list that may be streamed. Each file is found once."""

from __future__ import annotations

import os
import random
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path, PurePath, PurePosixPath

from tipsseg.address import address_text, as_address, has_scheme, is_url, suffix_of
from tipsseg.errors import ImageError, InputError, NoImagesError, TipssegError, UsageError
from tipsseg.images.access import (
    CONTAINERS,
    VIDEOS,
    absolute,
    container_of,
    kind_of,
    list_members,
    name_below,
    plain_name,
    real_path,
    stamp_source,
)
from tipsseg.images.decoders import Skipped, image_extensions
from tipsseg.images.remote import check_address, is_remote_folder, list_folder
from tipsseg.options.values import EVERY_HINT, Every
from tipsseg.types import Failed, ImageRef, name_order, printable_path
from tipsseg.util.files import describe_error
from tipsseg.util.text import quote

#: Returns the names in a folder that are not searched, given the folder and the names of its subfolders.
Ignore = Callable[[Path, Sequence[str]], Collection[str]]

#: One path, or several.
Paths = str | Path | Iterable[str | Path]

PERMISSIONS = "Check the path and its permissions."

_OPEN_HINT = "Download or write the file again, or remove the file."

_ACCESS_URL = "Check the URL, the network, and the credentials of the service."


@dataclass(frozen=True, slots=True)
class Listed:
    """A list of image paths; its entries may arrive one by one."""

    entries: Iterable[bytes]

    def __str__(self) -> str:
        """Return what stands for a list on the command line."""
        return "-"


@dataclass(frozen=True, slots=True)
class Found:
    """The images of a run.

    Attributes:
        refs: The images, sorted by name, folder by folder; see `name_order`.
        skipped: Files without an image extension, except hidden files.
        root: The folder that names are relative to.
        refused: Folders that cannot be listed, sorted like the images.
    """

    refs: tuple[ImageRef, ...]
    skipped: Skipped
    root: Path
    refused: tuple[Failed, ...] = ()


def as_paths(images: Paths) -> tuple[Path, ...]:
    """Return one path or several as a tuple. Raise UsageError for other values."""
    if not isinstance(images, Iterable | Path):
        raise UsageError(f"images must be paths, not {quote(images)}", 'For example: "photos/", or a list of files.')
    paths = (images,) if isinstance(images, str | Path) else tuple(images)
    for path in paths:
        if not isinstance(path, str | Path):
            raise UsageError(f"images must be paths, not {quote(path)}", "Use Model.label for an image in memory.")
    addresses = tuple(map(as_address, paths))
    for address in addresses:
        check_address(address)
    return addresses


def find(paths: Sequence[Path], ignore: Ignore, every: Every | None = None) -> Found:
    """Find the images at `paths`: files, whatever their extension, and folders, searched with their sub-folders.

    In folders, images are files with an extension that Pillow can open. Archives and Parquet files are searched for images; from
    videos, frames are taken at the interval `every`. Links are followed. Hidden files and folders are ignored, and so are the names
    that `ignore` returns. A file that is given twice is returned once.

    Names are relative to the folder if `paths` is a single folder, otherwise to the common parent folder of all `paths`.
    Raise InputError for a path that does not exist, and if no image is found.
    """
    given = _examine(paths)
    homes = [
        absolute(path) if folder else (container_of(absolute(path)) or absolute(path)).parent for path, folder in given
    ]
    try:
        root = Path(os.path.commonpath(homes))
    except ValueError:  # no folder, or folders on different drives
        root = Path.cwd()
    where = "in " + ", ".join(address_text(path) for path, _ in given) if given else "as no path was given"
    return _found(given, root, Walker(ignore, every), where)


def find_in_list(entries: Iterable[str | bytes], root: Path, ignore: Ignore, every: Every | None = None) -> Found:
    """Find the images in a list with one path per entry, as `find` does, except for their names.

    Names are relative to `root`; a path outside it loses its anchor and every `..`. Blank entries, line ends and a byte order mark
    are ignored. Raise InputError as `find` does.
    """
    return _found(_examine(map(as_address, clean_entries(entries))), root, Walker(ignore, every), "in the list")


def stream(
    entries: Iterable[str | bytes], root: Path, ignore: Ignore, every: Every | None = None
) -> Iterator[ImageRef | Failed]:
    """Yield the images in a list as `find_in_list` finds them, in list order, each as soon as its entry is read.

    A folder is replaced by its images, sorted. Invalid names and folders that cannot be listed become a Failed. A missing path
    is an ImageRef: the file may exist by the time it is opened. Raise InputError at the end if the list had no image.
    """
    walker = Walker(ignore, every)
    empty = True
    for text in clean_entries(entries):
        for image in _expand(as_address(text), root, walker):
            empty = False
            yield image
    if empty:
        raise _no_images("in the list", walker)


def choose_images(found: Found, sample: int | None) -> Found:
    """Keep a random `sample` of the images, with a fixed seed; None keeps all."""
    if sample is None or sample >= len(found.refs):
        return found
    chosen = sorted(random.Random(0).sample(range(len(found.refs)), sample))
    return replace(found, refs=tuple(found.refs[index] for index in chosen))


class Walker:
    """Turn paths into images, each file once.

    Attributes:
        skipped: Files without an image extension, in folders.
    """

    def __init__(self, ignore: Ignore, every: Every | None = None) -> None:
        """Set up a search.

        Args:
            ignore: See `Ignore`.
            every: The interval of the frames of videos.
        """
        self.skipped = Skipped()
        self._ignore = ignore
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
        folders = [(top, relative)]
        # Linked folders come last: if a link leads back into the tree, images get their names in the tree itself.
        links: deque[tuple[Path, PurePosixPath]] = deque()
        while folders or links:
            folder, name = folders.pop() if folders else links.popleft()
            try:
                status = folder.stat()
                if (status.st_dev, status.st_ino) in self._folders:
                    continue
                self._folders.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as found:
                    entries = sorted((entry for entry in found if entry.name[0] != "."), key=lambda entry: entry.name)
            except FileNotFoundError:  # removed meanwhile
                continue
            except OSError as error:
                yield refuse(folder, name, f"cannot list this folder: {describe_error(error)}")
                continue
            real = os.path.realpath(folder)
            kinds = [_kind(entry) for entry in entries]
            subfolders = [entry.name for entry, kind in zip(entries, kinds, strict=True) if kind == "folder"]
            ignored = self._ignore(folder, subfolders)
            for entry, kind in zip(entries, kinds, strict=True):
                if entry.name in ignored:
                    continue
                if kind == "folder":
                    (links if entry.is_symlink() else folders).append((folder / entry.name, name / entry.name))
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
                    yield from self._open(top / name, relative / plain_name(PurePosixPath(name), top))
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
            raise UsageError(f"{printable_path(path)}: a video requires the interval of its frames", EVERY_HINT)
        name, has_files = relative.with_suffix(""), kind_of(path).has_files
        try:
            for member in list_members(path, self._every):
                if member.fault:
                    error = ImageError(path / member.name, member.fault, _OPEN_HINT)
                    yield Failed(ImageRef(path / member.name, name / member.name), error)
                elif has_files and suffix_of(PurePath(member.name)) not in self._extensions:
                    self.skipped.add(member.name, file=True)
                else:
                    yield ImageRef(path / member.name, name / member.name)
        except (OSError, ValueError) as error:
            yield Failed(ImageRef(path, relative), ImageError(path, describe_error(error), _OPEN_HINT))


def refuse(path: Path, relative: PurePosixPath, reason: str) -> Failed:
    return Failed(ImageRef(path, relative), ImageError(path, reason, PERMISSIONS))


def by_name(image: ImageRef | Failed) -> tuple[str, ...]:
    """Return the key that sorts images by name, folder by folder."""
    return name_order(image.name)


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "folder", "file" or "other" (pipes, sockets, devices); a broken link counts as a file, so that the error names it."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "other"
    except OSError:  # for example a link to itself
        return "file"


def _found(given: Sequence[tuple[Path, bool]], root: Path, walker: Walker, where: str) -> Found:
    images = [image for path, folder in given for image in walker.images(path, _relative(path, root), folder)]
    refs = [image for image in images if isinstance(image, ImageRef)]
    refused = sorted((image for image in images if isinstance(image, Failed)), key=by_name)
    if not refs and refused:
        raise InputError(refused[0].error.message, refused[0].error.hint)
    if not refs:
        raise _no_images(where, walker)
    return Found(tuple(sorted(refs, key=by_name)), walker.skipped, root, tuple(refused))


_SEARCHED = (
    "Folders are searched for extensions such as .jpg, .png, .tif and .webp;"
    " a file given by its own path may have any extension."
)


def _no_images(where: str, walker: Walker) -> NoImagesError:
    skipped = f"; skipped there: {walker.skipped}" if walker.skipped else ""
    return NoImagesError(
        f"no images {where}{skipped}",
        reduce(lambda one, other: one + " " + other, walker.skipped.hints or (_SEARCHED,)),
    )


def _expand(path: Path, root: Path, walker: Walker) -> Iterable[ImageRef | Failed]:
    relative = _relative(path, root)
    try:
        return walker.images(path, relative, _is_folder(path))
    except (FileNotFoundError, NotADirectoryError):
        if relative.name:  # reported when the image is read; not for example nothing/..
            return walker.images(path, relative, False)
        error = ImageError(path, "no such file", PERMISSIONS)
    except TipssegError as fault:  # a bad URL, or a video without an interval
        return [Failed(ImageRef(path, relative), ImageError(path, fault.message, fault.hint))]
    except (OSError, ValueError) as fault:
        error = ImageError(path, _reason(path, fault), _ACCESS_URL if is_url(path) else PERMISSIONS)
    return [Failed(ImageRef(path, relative), error)] if walker.is_new(real_path(path)) else []


def _examine(paths: Iterable[Path]) -> list[tuple[Path, bool]]:
    """Return the paths, each with True if it is a folder. Raise InputError if a path does not exist."""
    given: list[tuple[Path, bool]] = []
    missing: list[str] = []
    reason = "no such file or folder"
    for path in paths:
        try:
            given.append((path, _is_folder(path)))
        except (FileNotFoundError, NotADirectoryError) as error:
            if not missing and error.errno is None:  # a text of our own, such as for a member of an archive
                reason = str(error)
            missing.append(address_text(path))
        except (OSError, ValueError) as error:
            hint = _ACCESS_URL if is_url(path) else PERMISSIONS
            raise InputError(f"{address_text(path)}: {_reason(path, error)}", hint) from error
    if missing:
        more = f" (and {len(missing) - 1} more paths)" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: {reason}{more}", "Check the path; patterns are not expanded.")
    return given


def _is_folder(path: Path) -> bool:
    """Return True for a folder, False for an image or a container. Raise OSError if it is missing, InputError for a bad URL."""
    check_address(path)
    if is_url(path) and container_of(path) is None:
        if (folder := is_remote_folder(path)) and "?" in path.name:
            raise InputError("a web folder with a query cannot be searched", "List the addresses of its images.")
        return folder
    if container_of(path) is None:
        return stat.S_ISDIR(path.stat().st_mode)
    stamp_source(path)
    return False


def clean_entries(entries: Iterable[str | bytes]) -> Iterator[str]:
    """Yield the entries of a list as text, without blank ones, line ends and a byte order mark."""
    for number, entry in enumerate(entries):
        text = os.fsdecode(entry).rstrip("\r\n")
        if number == 0:
            text = text.removeprefix("\ufeff")
        if text.strip():
            yield text


def _reason(path: Path, error: OSError | ValueError) -> str:
    return "a name with a NUL byte" if "\0" in str(path) else describe_error(error)


def _relative(path: Path, root: Path) -> PurePosixPath:
    """Return `path` relative to `root`, or without its anchor and `..` if it is outside."""
    if (name := name_below(path, root)) is not None:
        return name
    plain = Path(os.path.normpath(path))
    parts = plain.relative_to(plain.anchor).parts if plain.anchor else plain.parts
    if has_scheme(path):
        host, *rest = PurePosixPath(address_text(path).split("://")[1]).parts
        parts = (host.partition(":")[0], *plain_name(PurePosixPath(*rest), path).parts)
    return PurePosixPath(*(part for part in parts if part != ".."))
