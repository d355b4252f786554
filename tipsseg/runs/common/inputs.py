"""Find the images to label, in paths and folders or in a list that may be streamed; refuse inputs that cannot be labelled."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tipsseg.address import address_text, as_address, has_scheme, is_url
from tipsseg.errors import ImageError, InputError, TipssegError, UsageError
from tipsseg.images.skipped import Skipped
from tipsseg.images.sources.access import stamp_source
from tipsseg.images.sources.address import absolute, container_of, name_below, plain_name, real_path
from tipsseg.images.sources.remote import check_address, is_remote_folder
from tipsseg.options.every import Every
from tipsseg.run.names import NameKey, OutputNames, RunNames, exact
from tipsseg.run.results import Failed
from tipsseg.runs.common.walking import PERMISSIONS, OutputFolders, Walker, by_name
from tipsseg.types import ImageRef
from tipsseg.util.files import describe_error, is_folder

_ACCESS_URL = "Check the URL, the network, and the credentials of the service."

_OTHER_OUTPUT = "Choose another output folder with argument `output`."


@dataclass(frozen=True, slots=True)
class Found:
    """The images of a run.

    Attributes:
        refs: The images, sorted by name, folder by folder; see `name_order`.
        skipped: Files without an image extension, except hidden files.
        root: The folder that names are relative to.
        outputs: Folders that were not searched, because they contain, or will contain, outputs of a run.
        refused: Folders that cannot be listed, sorted like the images.
    """

    refs: tuple[ImageRef, ...]
    skipped: Skipped
    root: Path
    outputs: tuple[Path, ...] = ()
    refused: tuple[Failed, ...] = ()


def find(paths: Sequence[Path], *, output: Path | None, apart: Path | None = None, every: Every | None = None) -> Found:
    """Find the images at `paths`: files, whatever their extension, and folders, searched with their sub-folders.

    In folders, images are files with an extension that Pillow can open. Archives and Parquet files are searched for images; from
    videos, frames are taken at the interval `every`. Links are followed. Hidden files and folders are ignored,
    and so are the folders `output` and `apart`, and the pictures in `output` and in the output folders of other runs. A file that
    is given twice is returned once.

    Names are relative to the folder if `paths` is a single folder, otherwise to the common parent folder of all `paths`.
    Raises InputError for a path that does not exist, and if no image is found.
    """
    given = _examine(paths)
    homes = [
        absolute(path) if folder else (container_of(absolute(path)) or absolute(path)).parent for path, folder in given
    ]
    where = "in " + ", ".join(address_text(path) for path, _ in given) if given else "as no path was given"
    return _found(given, _common_folder(homes), Walker(output, apart, every), where)


def from_list(
    entries: Iterable[str | bytes],
    *,
    output: Path | None,
    apart: Path | None = None,
    run: RunNames | None = None,
    every: Every | None = None,
) -> Found:
    """Find the images in a list with one path per entry, as `find` does, except for their names.

    Images of the resumed `run` keep their names. Other names are relative to the root of that run, or to the current folder; a path
    outside it loses its anchor and every `..`. Blank entries, line ends and a byte order mark are ignored.
    Raises InputError as `find` does.
    """
    given = _examine(map(as_address, clean_entries(entries)))
    found = _found(given, _list_root(run), Walker(output, apart, every), "in the list")
    refs = found.refs if run is None else sorted(map(run.named, found.refs), key=by_name)
    return replace(found, refs=tuple(refs))


def stream(
    entries: Iterable[str | bytes],
    *,
    output: Path | None,
    names: OutputNames,
    run: RunNames | None = None,
    every: Every | None = None,
) -> Iterator[ImageRef | Failed]:
    """Yield the images in a list as `from_list` finds them, in list order, each as soon as its entry is read.

    A folder is replaced by its images, sorted. Inputs that cannot be labelled become a Failed: invalid names, folders that cannot
    be listed, files in folders that this run writes pictures to, and images that would share a file with an earlier one, see
    `names`. A missing path is an ImageRef: the file may exist by the time it is opened.

    Memory grows by three strings per image. Raises InputError at the end if the list had no image.
    """
    root = _list_root(run)
    walker = Walker(output, None, every)
    outputs = OutputFolders(output, names.key)
    empty = True
    for text in clean_entries(entries):
        for image in _expand(as_address(text), root, walker):
            empty = False
            if isinstance(image, Failed):
                yield image
                continue
            if run is not None:
                image = run.named(image)  # noqa: PLW2901
            if reason := outputs.conflict_with(image.path):
                yield Failed(image, ImageError(image.path, reason, _OTHER_OUTPUT))
            elif reason := names.take(image):
                yield Failed(image, ImageError(image.path, reason, names.hint))
            else:
                yield image
    if empty:
        raise _no_images("in the list", walker)


def again(refs: Iterable[ImageRef], *, output: Path | None, every: Every | None = None) -> Iterator[ImageRef | Failed]:
    """Yield the images that failed before, under the same names; a folder is replaced by its images."""
    walker = Walker(output, None, every)
    for ref in refs:
        yield from walker.images(ref.path, ref.relative, is_folder(ref.path))


def check_listed(found: Found) -> None:
    """Raise InputError if a folder cannot be listed."""
    if found.refused:
        raise InputError(found.refused[0].error.message, found.refused[0].error.hint)


def check_image_root(images: Path | None) -> None:
    """Raise UsageError if the folder that replaces a run's image root is missing; None replaces nothing."""
    if images is not None and not is_url(images) and not is_folder(images):
        raise UsageError(
            f"argument `images`={images}: no such folder", "Pass the folder that image names are relative to."
        )


def choose_images(found: Found, limit: int | None, sample: int | None) -> Found:
    """Keep a random `sample` of the images, with a fixed seed, and the first `limit`; None keeps all."""
    refs = found.refs
    if sample is not None and sample < len(refs):
        chosen = sorted(random.Random(0).sample(range(len(refs)), sample))
        refs = tuple(refs[index] for index in chosen)
    return replace(found, refs=refs[:limit])


def check_collisions(refs: Sequence[ImageRef], names: OutputNames) -> None:
    """Raise InputError if two inputs would share output files. The message names the first pair and counts the others."""
    reasons = [reason for ref in refs if (reason := names.take(ref))]
    if reasons:
        pairs = len(reasons)
        more = f" (and {pairs - 1} more such pair{'s' if pairs > 2 else ''})" if pairs > 1 else ""
        raise InputError(reasons[0] + more, names.hint)


def check_not_outputs(refs: Sequence[ImageRef], output: Path, key: NameKey = exact) -> None:
    """Raise InputError if an input is one of the run's own pictures, which it may overwrite.

    `key` maps names of the same file to the same text; see `file_names.name_key`.
    """
    outputs = OutputFolders(output, key)
    for ref in refs:
        if reason := outputs.conflict_with(ref.path):
            raise InputError(f"{ref.address}: {reason}", _OTHER_OUTPUT)


def _found(given: Sequence[tuple[Path, bool]], root: Path, walker: Walker, where: str) -> Found:
    images = [image for path, folder in given for image in walker.images(path, _relative(path, root), folder)]
    refs = [image for image in images if isinstance(image, ImageRef)]
    refused = sorted((image for image in images if isinstance(image, Failed)), key=by_name)
    if not refs and refused:
        raise InputError(refused[0].error.message, refused[0].error.hint)
    if not refs:
        raise _no_images(where, walker)
    outputs = tuple(sorted(walker.outputs))
    return Found(tuple(sorted(refs, key=by_name)), walker.skipped, root, outputs, tuple(refused))


def _no_images(where: str, walker: Walker) -> InputError:
    skipped = f"; skipped there: {walker.skipped}" if walker.skipped else ""
    return InputError(
        f"no images {where}{skipped}",
        " ".join(walker.skipped.hints)
        or "Folders are searched for extensions such as .jpg, .png, .tif and .webp;"
        " a file given by its own path may have any extension.",
    )


def _list_root(run: RunNames | None) -> Path:
    return Path.cwd() if run is None or run.root is None else run.root


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
    return [Failed(ImageRef(path, relative), error)] if walker.is_new(_real(path)) else []


def _real(path: Path) -> str:
    try:
        return real_path(path)
    except ValueError:  # a name that no file can have
        return str(path)


def _examine(paths: Iterable[Path]) -> list[tuple[Path, bool]]:
    """Return the paths, each with True if it is a folder. Raises InputError if a path does not exist."""
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


def _common_folder(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # no folder, or folders on different drives
        return Path.cwd()


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
