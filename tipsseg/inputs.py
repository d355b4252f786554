"""Which files to label: paths and folders, or a list on stdin, to references in a fixed order; and what is refused."""

from __future__ import annotations

import os
import random
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath

from tipsseg.errors import InputError, UsageError
from tipsseg.images import image_extensions, reason_of
from tipsseg.records import ImageRef
from tipsseg.writers import CONFUSION_PICTURE, FOLDERS, SUFFIXES, output_path

#: Pictures that runs leave in their output folders.
_OURS = FOLDERS | {CONFUSION_PICTURE}


@dataclass(frozen=True, slots=True)
class Found:
    """The images of a run.

    refs     sorted by the parts of their relative paths, in code point order
    skipped  files in the folders that are no images by their extension; hidden files are not counted
    outputs  folders that were not searched, because outputs of a run are or would be in them
    root     the folder that the relative paths begin at
    """

    refs: tuple[ImageRef, ...]
    skipped: int
    root: Path
    outputs: tuple[Path, ...] = ()


def find(paths: Sequence[Path], *, output: Path | None, apart: Path | None = None) -> Found:
    """The images that `paths` name: files, whatever their extension, and folders, searched with their sub-folders.

    In folders, files count by the extensions that Pillow can open. Hidden files and folders are left out, links are
    followed. Left out are also the folders `output` and `apart`, where they lie in a searched folder, and the pictures in
    `output` and in the output folders of other runs. A file that is named twice, or named and in a searched folder, is taken
    once.

    Relative paths begin at the folder where just one is given, otherwise at the common parent folder of all `paths`.
    Raises InputError for a path that does not exist or cannot be listed, and where there is no image at all.
    """
    given = _examine(paths)
    homes = [_absolute(path) if is_folder else _absolute(path).parent for path, is_folder in given]
    root = _common_folder(homes)
    gatherer = _Gatherer(output, apart)
    for path, is_folder in given:
        gatherer.add(path, _relative(path, root), is_folder)
    return gatherer.found(root, "in " + ", ".join(str(path) for path, _ in given) if given else "as no path was given")


def from_list(entries: Iterable[str | bytes], *, output: Path | None, apart: Path | None = None) -> Found:
    """The images that a list names, one path an entry; like `find`, except for the relative paths.

    Those begin at the current folder. Of a path outside of it remain the parts without the anchor and without `..`.
    Blank entries, line ends and a byte order mark are ignored. Raises InputError as `find` does.
    """
    root = Path.cwd()
    gatherer = _Gatherer(output, apart)
    for path, is_folder in _examine(Path(name) for name in _clean_entries(entries)):
        gatherer.add(path, _relative(path, root), is_folder)
    return gatherer.found(root, "in the list")


def choose(found: Found, limit: int | None, sample: int | None) -> Found:
    """A part of the images: `sample` of them drawn at random, always the same of the same, or the first `limit`; in their order.

    None leaves out nothing. Raises UsageError for a number below 1, and for both at once.
    """
    for option, number in (("--limit", limit), ("--sample", sample)):
        if number is not None and number < 1:
            raise UsageError(f"{option} {number} is too small; the least is 1")
    if limit is not None and sample is not None:
        raise UsageError("--limit and --sample exclude each other", "Give one of them.")
    refs = found.refs
    if sample is not None and sample < len(refs):
        chosen = sorted(random.Random(0).sample(range(len(refs)), sample))
        refs = tuple(refs[index] for index in chosen)
    return replace(found, refs=refs[:limit])


def check_collisions(refs: Sequence[ImageRef]) -> None:
    """Refuse inputs whose outputs would have one name: outputs are named by the relative path without its suffix.

    Raises InputError that names the first pair in full and counts the others.
    """
    owners: dict[PurePosixPath, ImageRef] = {}
    folders = {folder for ref in refs for folder in ref.relative.parents}
    first: str = ""
    pairs = 0
    for ref in refs:
        # Each suffix that the writers put on may also meet a folder of that name.
        names = [ref.relative.with_suffix(suffix) for suffix in SUFFIXES.values()]
        owner = owners.setdefault(names[0], ref)
        if owner is not ref:
            pairs += 1
            first = first or f"{owner.path} and {ref.path} would share one output, {ref.relative.with_suffix('')}"
        elif clash := [name for name in names if name in folders]:
            pairs += 1
            first = first or f"the output of {ref.path} would have the name of the folder {clash[0]}"
    if pairs:
        more = f" (and {pairs - 1} more such pair{'s' if pairs > 2 else ''})" if pairs > 1 else ""
        raise InputError(first + more, "Rename one of the two, or label them in two runs with an output folder each.")


def check_not_outputs(refs: Sequence[ImageRef], output: Path) -> None:
    """Refuse inputs that the run's own pictures would overwrite; raises InputError that names the first."""
    folder = Path(os.path.realpath(output))
    inputs = {os.path.realpath(ref.path): ref for ref in refs}
    for ref in refs:
        for name in FOLDERS:
            victim = inputs.get(str(output_path(folder, name, ref.relative)))
            if victim:
                raise InputError(
                    f"{victim.path} is an input and would be overwritten by the labels of {ref.path}",
                    "Choose another output folder with -o.",
                )


class _Gatherer:
    """Collects the images of one run."""

    def __init__(self, output: Path | None, apart: Path | None) -> None:
        self._refs: list[ImageRef] = []
        self._skipped = 0
        self._outputs: list[Path] = []
        self._extensions = image_extensions()
        self._output = None if output is None else _identity(output)
        self._apart = None if apart is None else _identity(apart)
        self._folders: set[tuple[int, int]] = set()
        self._files: set[str] = set()

    def add(self, path: Path, relative: PurePosixPath, is_folder: bool) -> None:
        """Add a file, or a folder's images; `relative` names it."""
        if is_folder:
            self._walk(path, relative)
        else:
            self._take(path, relative, os.path.realpath(path))

    def found(self, root: Path, where: str) -> Found:
        """What was added; `where` tells in an error where it was looked."""
        if not self._refs:
            skipped = f"; skipped {self._skipped} other file(s)" if self._skipped else ""
            raise InputError(
                f"no images {where}{skipped}",
                "Folders are searched for extensions such as .jpg, .png, .tif and .webp;"
                " a file that is named itself is taken whatever its extension.",
            )
        refs = sorted(self._refs, key=lambda ref: ref.relative.parts)
        return Found(tuple(refs), self._skipped, root, tuple(sorted(self._outputs)))

    def _take(self, path: Path, relative: PurePosixPath, real: str) -> None:
        if real not in self._files:
            self._files.add(real)
            self._refs.append(ImageRef(path, relative))

    def _walk(self, top: Path, relative: PurePosixPath) -> None:
        folders = [(top, relative)]
        # Linked folders come last, so that images go by their names in the tree itself where a link leads back into it.
        links: deque[tuple[Path, PurePosixPath]] = deque()
        while folders or links:
            folder, name = folders.pop() if folders else links.popleft()
            identity = _identity(folder)
            if identity is None or identity in self._folders:
                continue
            self._folders.add(identity)
            real = os.path.realpath(folder)
            ours = _OURS if identity == self._output or _is_output(folder) else frozenset[str]()
            for entry in _scan(folder):
                if entry.name.startswith("."):
                    continue
                kind = _kind(entry)
                if kind == "folder":
                    path = folder / entry.name
                    inner = _identity(path)
                    if entry.name in ours or (inner is not None and inner == self._output):
                        self._outputs.append(path)
                    elif inner is None or inner != self._apart:
                        (links if entry.is_symlink() else folders).append((path, name / entry.name))
                elif entry.name in ours:
                    continue
                elif kind == "other" or PurePath(entry.name).suffix.lower() not in self._extensions:
                    self._skipped += 1
                else:
                    # Two linked files of different names are two images; hence the folder is resolved, not the file.
                    self._take(folder / entry.name, name / entry.name, str(PurePath(real, entry.name)))


def _examine(paths: Iterable[Path]) -> list[tuple[Path, bool]]:
    """Each path with whether it is a folder; InputError for those that are not there."""
    given: list[tuple[Path, bool]] = []
    missing: list[str] = []
    for path in paths:
        try:
            given.append((path, stat.S_ISDIR(path.stat().st_mode)))
        except (FileNotFoundError, NotADirectoryError):
            missing.append(str(path))
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
            raise InputError(f"{path}: {reason_of(error)}", "Check the path and its permissions.") from error
    if missing:
        more = f" (and {len(missing) - 1} more paths of the input)" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: no such file or folder{more}", "Check the path; inputs are taken as they are.")
    return given


def _clean_entries(entries: Iterable[str | bytes]) -> Iterator[str]:
    for number, entry in enumerate(entries):
        text = os.fsdecode(entry).rstrip("\r\n")
        if number == 0:
            text = text.removeprefix("\ufeff")
        if text.strip():
            yield text


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot list the folder {folder}: {reason_of(error)}", "Check its permissions.") from error


def _kind(entry: os.DirEntry[str]) -> str:
    """Returns "folder", "file" or "other" (pipes, sockets, devices); a broken link is a file, which fails by name."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "other"
    except OSError:  # a link to itself, for one
        return "file"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _is_output(folder: Path) -> bool:
    """Whether a run of tipsseg wrote into the folder."""
    return any(_names_tool(folder / name) for name in ("run.json", "eval.json"))


def _names_tool(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 20)
    except OSError:
        return False
    return re.search(r'"tool"\s*:\s*"tipsseg"', text) is not None


def _absolute(path: Path) -> Path:
    # Not Path.resolve: that follows links, and names should be those that were given.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _common_folder(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # none at all, or drives that have nothing in common
        return Path.cwd()


def _relative(path: Path, root: Path) -> PurePosixPath:
    """`path` relative to `root`; for a path outside of it, the path without its anchor and `..`."""
    absolute = _absolute(path)
    if absolute.is_relative_to(root):
        return PurePosixPath(*absolute.relative_to(root).parts)
    plain = Path(os.path.normpath(path))
    parts = plain.relative_to(plain.anchor).parts if plain.anchor else plain.parts
    return PurePosixPath(*(part for part in parts if part != ".."))
