"""Find the truth mask of each image by its name."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from tipsseg.errors import InputError
from tipsseg.evaluation.truth import Layout, TruthKind
from tipsseg.types import ImageRef
from tipsseg.util.files import is_file, is_folder, is_there, reason_of

#: The extensions of truth files. Of files that differ in the extension alone, the one whose extension comes first here counts.
EXTENSIONS = (".png", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, slots=True)
class Pair:
    """An image, its truth file, and the kind of the truth file."""

    ref: ImageRef
    truth: Path
    kind: TruthKind


@dataclass(frozen=True, slots=True)
class Pairs:
    """Images with their truths.

    Attributes:
        pairs: In the order of the images.
        unused: The number of truths without an image.
        missing: The images without a truth.
    """

    pairs: tuple[Pair, ...]
    unused: int
    missing: tuple[ImageRef, ...] = ()


def pair_truths(refs: Sequence[ImageRef], folder: Path, layout: Layout) -> Pairs:
    """Find the truth of every image.

    A truth belongs to an image if its relative path is the image's path with one more extension, a.jpg.png for a.jpg. Else it
    belongs to the image if both have the same relative path, apart from the extension and the layout's suffixes. Without
    either, the file name alone counts, if it is the only one of that name: a folder of truths serves a list of images from
    elsewhere too.

    Sub-folders of `folder` and links to folders are searched, hidden files and folders are not.

    Raises:
        InputError: For a folder that is missing or has no truths, for an image with no truth or several truths, for an image
            that would be its own truth, and for two images with one truth.
    """
    found = _pair(refs, _Index(folder), layout)
    if missing := found.missing:
        more = f" (and for {len(missing) - 1} more image{'s' if len(missing) > 2 else ''})" if len(missing) > 1 else ""
        names = " or ".join(dict.fromkeys(str(name) for name, _ in _names(missing[0], layout)))
        raise InputError(
            f"no truth for {missing[0].path} in {folder}: looked for {names} with one of {' '.join(EXTENSIONS)}{more}",
            _hint(missing[0], folder, layout),
        )
    return found


def find_truths(refs: Sequence[ImageRef], folder: Path, layout: Layout) -> Pairs:
    """As `pair_truths`, but images may be without a truth.

    A file of the image's name may be the truth of another image then. It counts only if one path ends with the other, and if it has
    the path of no other image; any place counts if no truth is found so.
    """
    index = _Index(folder)
    found = _pair(refs, index, layout, partial=True)
    return found if found.pairs else _pair(refs, index, layout)


def _pair(refs: Sequence[ImageRef], index: _Index, layout: Layout, *, partial: bool = False) -> Pairs:
    by_path = [index.at_path(ref, layout) for ref in refs]
    taken = {found[0] for found in by_path if found is not None} if partial else None
    owners: dict[Path, ImageRef] = {}
    pairs: list[Pair] = []
    missing: list[ImageRef] = []
    for ref, at_path in zip(refs, by_path, strict=True):
        found = at_path or index.by_name(ref, layout, taken)
        if found is None:
            missing.append(ref)
            continue
        path, kind = found
        _refuse_itself(ref, path)
        owner = owners.setdefault(path, ref)
        if owner is not ref:
            raise InputError(
                f"{owner.path} and {ref.path} would share one truth, {path}",
                "Give images and truths the same sub-folders, or evaluate the two in runs of their own.",
            )
        pairs.append(Pair(ref, path, kind))
    return Pairs(tuple(pairs), index.count(layout) - len(pairs), tuple(missing))


class _Index:
    """The truth files of a folder, by their paths relative to it without extension."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[PurePosixPath, Path] = {}
        for relative in sorted(_walk(folder), key=_rank):
            self._files.setdefault(relative.with_suffix(""), folder / relative)
        if not self._files:
            raise InputError(
                f"no truth masks in {folder}",
                f"Folders are searched for files with one of {' '.join(EXTENSIONS)}."
                " If these are the photographs, images and argument `truths` are swapped.",
            )
        self._by_stem: dict[str, list[Path]] = {}
        for name, path in self._files.items():
            self._by_stem.setdefault(name.name, []).append(path)

    def at_path(self, ref: ImageRef, layout: Layout) -> tuple[Path, TruthKind] | None:
        names = _full_names(ref, layout) + _names(ref, layout)
        return next(((self._files[name], kind) for name, kind in names if name in self._files), None)

    def by_name(
        self, ref: ImageRef, layout: Layout, taken: Container[Path] | None = None
    ) -> tuple[Path, TruthKind] | None:
        """Return the truth that has the file name of an image. Raises InputError if several files have it.

        With `taken`, the truths of other images, one of the two paths must end with the other.
        """
        for name, kind in _full_names(ref, layout) + _names(ref, layout):
            paths = self._by_stem.get(name.name, [])
            if taken is not None:
                paths = [path for path in paths if path not in taken and self._ends_alike(path, name)]
            if len(paths) > 1:
                raise InputError(
                    f"{paths[0]} and {paths[1]} have the same name, and either may be the truth of {ref.path}",
                    "Give images and truths the same sub-folders, or the one sub-folder that belongs to the images.",
                )
            if paths:
                return paths[0], kind
        return None

    def _ends_alike(self, path: Path, name: PurePosixPath) -> bool:
        ours, theirs = path.relative_to(self._folder).with_suffix("").parts, name.parts
        common = min(len(ours), len(theirs))
        return ours[-common:] == theirs[-common:]

    def count(self, layout: Layout) -> int:
        """Count the truths: files of several kinds for one image count once, files of no kind do not count."""
        # The longest first, or the suffix of one kind would seem to be a part of another kind's name.
        suffixes = sorted((kind.suffix for kind in layout.kinds), key=len, reverse=True)
        stems = set()
        for name in self._files:
            suffix = next((suffix for suffix in suffixes if name.name.endswith(suffix)), None)
            if suffix is not None:
                stems.add((name.parent, name.name.removesuffix(suffix)))
        return len(stems)


def _names(ref: ImageRef, layout: Layout) -> list[tuple[PurePosixPath, TruthKind]]:
    """Return the relative paths, without extension, that an image's truth may have, the best first."""
    stem = ref.relative.stem.removesuffix(layout.image_suffix)
    return [(ref.relative.parent / (stem + kind.suffix), kind) for kind in layout.kinds]


def _full_names(ref: ImageRef, layout: Layout) -> list[tuple[PurePosixPath, TruthKind]]:
    """As `_names`, for a truth that keeps the image's extension, as a run with the `names` "full" names its masks."""
    return [(ref.relative.parent / (ref.relative.name + kind.suffix), kind) for kind in layout.kinds]


def _hint(ref: ImageRef, folder: Path, layout: Layout) -> str:
    for name, _ in _names(ref, layout):
        for other in (".jpg", ".jpeg", ".webp"):
            path = folder / f"{name}{other}"
            if is_there(path):
                return f"{path} is there, but truth masks need exact ids, as in a PNG. Or are images and argument `truths` swapped?"
    return (
        "Truths are found by the image's path in its folder, or by its file name. Name the images that have one, or the"
        " benchmark with argument `layout`."
    )


def _refuse_itself(ref: ImageRef, truth: Path) -> None:
    if os.path.realpath(ref.path) == os.path.realpath(truth):
        raise InputError(
            f"{ref.path} would be its own truth",
            "Images and truths lie in one folder, or the truths inside the images' folder. Name the images alone, for example "
            "by a pattern such as photos/*.jpg.",
        )


def _rank(relative: PurePosixPath) -> tuple[tuple[str, ...], int, str]:
    return relative.with_suffix("").parts, EXTENSIONS.index(relative.suffix.lower()), relative.suffix


def _walk(top: Path) -> Iterable[PurePosixPath]:
    if not is_folder(top):
        reason = "not a folder" if is_file(top) else "no such folder"
        raise InputError(f"{top}: {reason}", "Argument `truths` takes the folder that the truth masks are in.")
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(top, onerror=_refuse_folder, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        relative = PurePosixPath(PurePath(folder).relative_to(top))
        for name in names:
            if not name.startswith(".") and PurePath(name).suffix.lower() in EXTENSIONS:
                yield relative / name


def _refuse_folder(error: OSError) -> None:
    raise InputError(
        f"cannot list the folder {error.filename}: {reason_of(error)}", "Check its permissions."
    ) from error
