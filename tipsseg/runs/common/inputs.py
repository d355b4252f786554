"""Find the images to label, in paths and folders, or in a list that may come bit by bit; refuse what cannot be labelled."""

from __future__ import annotations

import os
import random
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath

from tipsseg.errors import ImageError, InputError, UsageError
from tipsseg.formats import CONFUSION_PICTURE, image_folders
from tipsseg.images.pillow import image_extensions
from tipsseg.images.skipped import Skipped
from tipsseg.options.shard import Shard
from tipsseg.store.file_names import NameKey, OutputNames, RunNames, exact
from tipsseg.store.results import Failed
from tipsseg.store.shards import SHARDS_FOLDER, shards_in
from tipsseg.types import ImageRef, name_order
from tipsseg.util.files import is_folder, reason_of

#: In each folder that `tipsseg report` wrote; images are not looked for in such a folder.
REPORT_FILE = "report.json"

_OTHER_OUTPUT = "Choose another output folder with argument `output`."
_PERMISSIONS = "Check the path and its permissions."


@dataclass(frozen=True, slots=True)
class Found:
    """The images of a run.

    Attributes:
        refs: The images, sorted by name, folder by folder; see `name_order`.
        skipped: Files in the folders that are no images by their extension, without hidden files.
        root: The folder that the relative paths begin at.
        outputs: Folders that were not searched, because outputs of a run are or would be in them.
        refused: Folders that cannot be listed, sorted as the images are.
    """

    refs: tuple[ImageRef, ...]
    skipped: Skipped
    root: Path
    outputs: tuple[Path, ...] = ()
    refused: tuple[Failed, ...] = ()


def find(paths: Sequence[Path], *, output: Path | None, apart: Path | None = None) -> Found:
    """Find the images that `paths` name: files, whatever their extension, and folders, searched with their sub-folders.

    In folders, files count by the extensions that Pillow can open. Hidden files and folders are left out, links are
    followed. Left out are also the folders `output` and `apart`, where they lie in a searched folder, and the pictures in
    `output` and in the output folders of other runs. A file that is named twice, or named and in a searched folder, is taken
    once.

    Relative paths begin at the folder where just one is given, otherwise at the common parent folder of all `paths`.
    Raises InputError for a path that does not exist, and where there is no image at all.
    """
    given = _examine(paths)
    homes = [_absolute(path) if folder else _absolute(path).parent for path, folder in given]
    where = "in " + ", ".join(str(path) for path, _ in given) if given else "as no path was given"
    return _found(given, _common_folder(homes), _Walker(output, apart), where)


def from_list(
    entries: Iterable[str | bytes], *, output: Path | None, apart: Path | None = None, run: RunNames | None = None
) -> Found:
    """The images that a list names, one path per entry; like `find`, except for the relative paths.

    Those are the names that the images have in a `run` that is gone on with. Other names begin at the root of that run, or at the
    current folder. Of a path outside of it remain the parts without the anchor and without `..`. Blank entries, line ends and a
    byte order mark are ignored. Raises InputError as `find` does.
    """
    given = _examine(Path(name) for name in clean_entries(entries))
    found = _found(given, _list_root(run), _Walker(output, apart), "in the list")
    refs = found.refs if run is None else sorted(map(run.named, found.refs), key=_order)
    return replace(found, refs=tuple(refs))


def stream(
    entries: Iterable[str | bytes], *, output: Path | None, names: OutputNames, run: RunNames | None = None
) -> Iterator[ImageRef | Failed]:
    """Yield the images that a list names, like `from_list`, but each as soon as its entry comes, in the order of the list.

    The images of a folder come where the folder stands, sorted. What cannot be labelled becomes a Failed, and the stream
    goes on: names that the system does not take, folders that cannot be listed, files in the folders that this run writes
    pictures to, and an image that would share a file with an earlier one, as `names` tells. A path that
    does not exist is an ImageRef: it may be there when its turn comes, and if not, opening it fails by name.

    Keeps three texts per image. Raises InputError at its end where there was no image at all.
    """
    root = _list_root(run)
    walker = _Walker(output, None)
    outputs = _OutputFolders(output, names.key)
    empty = True
    for text in clean_entries(entries):
        for image in _expand(Path(text), root, walker):
            empty = False
            if isinstance(image, Failed):
                yield image
                continue
            if run is not None:
                image = run.named(image)  # noqa: PLW2901
            if reason := outputs.place_of(image.path):
                yield Failed(image, ImageError(image.path, reason, _OTHER_OUTPUT))
            elif reason := names.take(image):
                yield Failed(image, ImageError(image.path, reason, names.hint))
            else:
                yield image
    if empty:
        raise _no_images("in the list", walker)


def again(refs: Iterable[ImageRef], *, output: Path | None) -> Iterator[ImageRef | Failed]:
    """Yield the images that failed before, by the names that they had then; in place of a folder, its images."""
    walker = _Walker(output, None)
    for ref in refs:
        yield from walker.images(ref.path, ref.relative, is_folder(ref.path))


def check_listed(found: Found) -> None:
    if found.refused:
        raise InputError(found.refused[0].error.message, found.refused[0].error.hint)


def check_image_root(images: Path | None) -> None:
    """Raise UsageError if the folder that takes the place of a run's image root is missing; None takes no place."""
    if images is not None and not is_folder(images):
        raise UsageError(
            f"argument `images`={images}: no such folder", "Give the folder that the images' names begin at."
        )


def choose(found: Found, limit: int | None, sample: int | None) -> Found:
    """Choose a part of the images: `sample` of them drawn at random, always the same, or the first `limit`; in their order.

    None leaves out nothing.
    """
    refs = found.refs
    if sample is not None and sample < len(refs):
        chosen = sorted(random.Random(0).sample(range(len(refs)), sample))
        refs = tuple(refs[index] for index in chosen)
    return replace(found, refs=refs[:limit])


def check_collisions(refs: Sequence[ImageRef], names: OutputNames) -> None:
    """Refuse inputs whose files would have one name; raises InputError that names the first pair in full and counts the others."""
    reasons = [reason for ref in refs if (reason := names.take(ref))]
    if reasons:
        pairs = len(reasons)
        more = f" (and {pairs - 1} more such pair{'s' if pairs > 2 else ''})" if pairs > 1 else ""
        raise InputError(reasons[0] + more, names.hint)


def check_not_outputs(refs: Sequence[ImageRef], output: Path, key: NameKey = exact) -> None:
    """Refuse inputs among the run's own pictures, which it may overwrite; raises InputError that names the first.

    `key` tells which names are one to the file system of the outputs; see `file_names.name_key`.
    """
    outputs = _OutputFolders(output, key)
    for ref in refs:
        if reason := outputs.place_of(ref.path):
            raise InputError(f"{ref.path}: {reason}", _OTHER_OUTPUT)


def is_output(folder: Path) -> bool:
    """Tell whether a run of tipsseg wrote into the folder, be it as a whole or a shard of it."""
    shards: list[Shard] = []
    with suppress(InputError):  # what cannot be looked into is told where it is searched for images
        shards = shards_in(folder)
    records = ("run.json", "eval.json", *(f"{SHARDS_FOLDER}/{shard.folder}/run.json" for shard in shards))
    return any(_names_tool(folder / name) for name in records)


class _OutputFolders:
    """The folders of a run's pictures."""

    def __init__(self, output: Path | None, key: NameKey) -> None:
        self._key = key
        self._folders = [] if output is None else [output / name for name in sorted(image_folders())]
        self._starts = [key(os.path.join(os.path.realpath(folder), "")) for folder in self._folders]  # noqa: PTH118

    def place_of(self, path: Path) -> str:
        """Return what is wrong with an input that lies in one of them, or ""."""
        real = self._key(os.path.realpath(path))
        for folder, start in zip(self._folders, self._starts, strict=True):
            if real.startswith(start):
                return f"an input in {folder}, which this run writes to"
        return ""


class _Walker:
    """Turn paths into images, each file once.

    Attributes:
        skipped: Files in folders that are no images by their extension.
        outputs: Folders that were not searched, because outputs of a run are or would be in them.
    """

    def __init__(self, output: Path | None, apart: Path | None) -> None:
        self.skipped = Skipped()
        self.outputs: list[Path] = []
        self._output = output
        self._apart = apart
        self._extensions = image_extensions()
        self._folders: set[tuple[int, int]] = set()
        self._files: set[str] = set()

    def images(self, path: Path, relative: PurePosixPath, folder: bool) -> list[ImageRef | Failed]:
        """Return a file, or a folder's images, sorted; `relative` names it. An image is returned once."""
        if folder:
            return sorted(self._walk(path, relative), key=_order)
        return [ImageRef(path, relative)] if self.is_new(os.path.realpath(path)) else []

    def is_new(self, file: str) -> bool:
        if file in self._files:
            return False
        self._files.add(file)
        return True

    def _walk(self, top: Path, relative: PurePosixPath) -> Iterator[ImageRef | Failed]:
        # Anew for each folder: in a stream, the run may have made its output folder by now.
        output = None if self._output is None else _identity(self._output)
        apart = None if self._apart is None else _identity(self._apart)
        folders = [(top, relative)]
        # Linked folders come last, so that images go by their names in the tree itself where a link leads back into it.
        links: deque[tuple[Path, PurePosixPath]] = deque()
        while folders or links:
            folder, name = folders.pop() if folders else links.popleft()
            try:
                identity = _identity_of(folder)
                if identity in self._folders:
                    continue
                self._folders.add(identity)
                entries = _scan(folder)
            except FileNotFoundError:  # removed since it was seen
                continue
            except OSError as error:
                yield _refused(folder, name, f"cannot list this folder: {reason_of(error)}")
                continue
            real = os.path.realpath(folder)
            ours = (
                image_folders() | {CONFUSION_PICTURE} if identity == output or is_output(folder) else frozenset[str]()
            )
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
                elif kind == "other" or PurePath(entry.name).suffix.lower() not in self._extensions:
                    self.skipped.add(entry.name, file=kind == "file")
                # Two linked files of different names are two images; hence the folder is resolved, not the file.
                elif self.is_new(str(PurePath(real, entry.name))):
                    yield ImageRef(folder / entry.name, name / entry.name)


def _found(given: Sequence[tuple[Path, bool]], root: Path, walker: _Walker, where: str) -> Found:
    images = [image for path, folder in given for image in walker.images(path, _relative(path, root), folder)]
    refs = [image for image in images if isinstance(image, ImageRef)]
    refused = sorted((image for image in images if isinstance(image, Failed)), key=_order)
    if not refs and refused:
        raise InputError(refused[0].error.message, refused[0].error.hint)
    if not refs:
        raise _no_images(where, walker)
    outputs = tuple(sorted(walker.outputs))
    return Found(tuple(sorted(refs, key=_order)), walker.skipped, root, outputs, tuple(refused))


def _no_images(where: str, walker: _Walker) -> InputError:
    skipped = f"; skipped there: {walker.skipped}" if walker.skipped else ""
    return InputError(
        f"no images {where}{skipped}",
        " ".join(walker.skipped.hints)
        or "Folders are searched for extensions such as .jpg, .png, .tif and .webp;"
        " a file that is named itself is taken whatever its extension.",
    )


def _list_root(run: RunNames | None) -> Path:
    return Path.cwd() if run is None or run.root is None else run.root


def _expand(path: Path, root: Path, walker: _Walker) -> Iterable[ImageRef | Failed]:
    relative = _relative(path, root)
    folder, reason = False, ""
    try:
        folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        if not relative.name:  # as of nothing/..
            reason = "no such file"
    except (OSError, ValueError) as error:
        reason = _reason(path, error)
    if not reason:
        return walker.images(path, relative, folder)
    return [_refused(path, relative, reason)] if walker.is_new(_real(path)) else []


def _real(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # a name that no file can have
        return str(path)


def _refused(path: Path, relative: PurePosixPath, reason: str) -> Failed:
    return Failed(ImageRef(path, relative), ImageError(path, reason, _PERMISSIONS))


def _order(image: ImageRef | Failed) -> tuple[str, ...]:
    return name_order(image.name)


def _examine(paths: Iterable[Path]) -> list[tuple[Path, bool]]:
    """Tell folders from files. Raises InputError for paths that do not exist."""
    given: list[tuple[Path, bool]] = []
    missing: list[str] = []
    for path in paths:
        try:
            given.append((path, stat.S_ISDIR(path.stat().st_mode)))
        except (FileNotFoundError, NotADirectoryError):
            missing.append(str(path))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: {_reason(path, error)}", _PERMISSIONS) from error
    if missing:
        more = f" (and {len(missing) - 1} more paths of the input)" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: no such file or folder{more}", "Check the path; inputs are taken as they are.")
    return given


def clean_entries(entries: Iterable[str | bytes]) -> Iterator[str]:
    """Yield the texts in the entries of a list, without blank ones, line ends and a byte order mark."""
    for number, entry in enumerate(entries):
        text = os.fsdecode(entry).rstrip("\r\n")
        if number == 0:
            text = text.removeprefix("\ufeff")
        if text.strip():
            yield text


def _reason(path: Path, error: OSError | ValueError) -> str:
    return "a name with a NUL byte" if "\0" in str(path) else reason_of(error)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "folder", "file" or "other" (pipes, sockets, devices); a broken link is a file, which fails by name."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "other"
    except OSError:  # a link to itself, for one
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


def _absolute(path: Path) -> Path:
    # Not Path.resolve: that follows links, and names should be those that were given.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _common_folder(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # none at all, or drives that have nothing in common
        return Path.cwd()


def _relative(path: Path, root: Path) -> PurePosixPath:
    """Return `path` relative to `root`; outside of it, the path without its anchor and `..`."""
    absolute = _absolute(path)
    if absolute.is_relative_to(root):
        return PurePosixPath(*absolute.relative_to(root).parts)
    plain = Path(os.path.normpath(path))
    parts = plain.relative_to(plain.anchor).parts if plain.anchor else plain.parts
    return PurePosixPath(*(part for part in parts if part != ".."))
