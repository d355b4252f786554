"""Pair images with truth masks by name."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from tipsseg.errors import InputError
from tipsseg.evaluation.truth import Layout, TruthKind
from tipsseg.formats import refuse_parts
from tipsseg.types import ImageRef
from tipsseg.util.files import describe_error, is_file, is_folder

#: Extensions of truth files. If several files differ only in the extension, the first in this order is used.
EXTENSIONS = (".png", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, slots=True)
class Pair:
    """An image, its truth file, and the kind of the truth file."""

    ref: ImageRef
    truth: Path
    kind: TruthKind


@dataclass(frozen=True, slots=True)
class Pairs:
    """Images paired with truth files.

    Attributes:
        pairs: The pairs in the order of the images.
        unused: Number of truth files without an image.
        missing: Images without a truth file.
    """

    pairs: tuple[Pair, ...]
    unused: int
    missing: tuple[ImageRef, ...] = ()


def pair_truths(refs: Sequence[ImageRef], folder: Path, layout: Layout) -> Pairs:
    """Find the truth file of every image.

    Use the first match in this order: a file with the image's relative path and one more extension (a.jpg.png for a.jpg); a
    file with the same relative path apart from the extension and the layout's suffixes; the only file with the image's file
    name. The last rule supports images in different folders.

    Search subfolders and follow links to folders. Ignore hidden files and folders.

    Raises:
        InputError: The folder is missing or has no truth files, an image has no truth or several, an image would be its own truth,
            or two images would share a truth.
    """
    pairs = _pair(refs, _Index(folder), layout)
    if missing := pairs.missing:
        more = f" (and for {len(missing) - 1} more image{'s' if len(missing) > 2 else ''})" if len(missing) > 1 else ""
        names = " or ".join(dict.fromkeys(str(name) for name, _ in _names(missing[0], layout)[-len(layout.kinds) :]))
        raise InputError(
            f"no truth for {missing[0].address} in {folder}: looked for {names} with one of {' '.join(EXTENSIONS)}{more}",
            "A truth mask has the relative path or the file name of its image, and a lossless format. Pass only images that have a "
            "mask, or select the benchmark with argument `layout`.",
        )
    return pairs


def find_truths(refs: Sequence[ImageRef], folder: Path, layout: Layout) -> Pairs:
    """Find truth files like `pair_truths`, but allow images without one.

    A file with the image's file name may then belong to another image. So it is used only if one path ends with the other, and no
    image has the file's own path. If this pairs no image at all, the rules of `pair_truths` apply.
    """
    index = _Index(folder)
    pairs = _pair(refs, index, layout, partial=True)
    return pairs if pairs.pairs else _pair(refs, index, layout)


def _pair(refs: Sequence[ImageRef], index: _Index, layout: Layout, *, partial: bool = False) -> Pairs:
    by_path = [index.by_path(ref, layout) for ref in refs]
    taken = {match[0] for match in by_path if match is not None} if partial else None
    owners: dict[Path, ImageRef] = {}
    pairs: list[Pair] = []
    missing: list[ImageRef] = []
    for ref, path_match in zip(refs, by_path, strict=True):
        match = path_match or index.by_name(ref, layout, taken)
        if match is None:
            missing.append(ref)
            continue
        path, kind = match
        _refuse_itself(ref, path)
        owner = owners.setdefault(path, ref)
        if owner is not ref:
            raise InputError(
                f"{owner.address} and {ref.address} would share the same truth, {path}",
                "Use the same subfolders for images and truths, or evaluate the two images in separate runs.",
            )
        pairs.append(Pair(ref, path, kind))
    return Pairs(tuple(pairs), index.count(layout) - len(pairs), tuple(missing))


class _Index:
    """Truth files of a folder, by relative path without extension."""

    def __init__(self, folder: Path) -> None:
        refuse_parts(folder)
        self._folder = folder
        self._files: dict[PurePosixPath, Path] = {}
        for relative in sorted(_walk(folder), key=_rank):
            self._files.setdefault(relative.with_suffix(""), folder / relative)
        if not self._files:
            raise InputError(
                f"no truth masks in {folder}",
                f"Truth masks are files with one of {' '.join(EXTENSIONS)}."
                " If the folder contains the photographs, images and argument `truths` are swapped.",
            )
        self._by_stem: dict[str, list[Path]] = {}
        for name, path in self._files.items():
            self._by_stem.setdefault(name.name, []).append(path)

    def by_path(self, ref: ImageRef, layout: Layout) -> tuple[Path, TruthKind] | None:
        names = _names(ref, layout)
        return next(((self._files[name], kind) for name, kind in names if name in self._files), None)

    def by_name(
        self, ref: ImageRef, layout: Layout, taken: Container[Path] | None = None
    ) -> tuple[Path, TruthKind] | None:
        """Return the truth with an image's file name. Raise InputError if several files have that name.

        `taken` contains the truths of other images. If set, these are excluded, and one of the two paths must end with the
        other.
        """
        for name, kind in _names(ref, layout):
            paths = self._by_stem.get(name.name, [])
            if taken is not None:
                paths = [path for path in paths if path not in taken and self._has_same_end(path, name)]
            if len(paths) > 1:
                raise InputError(
                    f"{paths[0]} and {paths[1]} have the same name, and either may be the truth of {ref.address}",
                    "Use the same subfolders for images and truths, or pass the subfolder that belongs to the images.",
                )
            if paths:
                return paths[0], kind
        return None

    def _has_same_end(self, path: Path, name: PurePosixPath) -> bool:
        ours, theirs = path.relative_to(self._folder).with_suffix("").parts, name.parts
        common = min(len(ours), len(theirs))
        return ours[-common:] == theirs[-common:]

    def count(self, layout: Layout) -> int:
        """Count the truths. Several kinds of files for one image count once; other files are ignored."""
        # Longest first, because a suffix may end with another kind's suffix.
        suffixes = sorted((kind.suffix for kind in layout.kinds), key=len, reverse=True)
        stems = set()
        for name in self._files:
            suffix = next((suffix for suffix in suffixes if name.name.endswith(suffix)), None)
            if suffix is not None:
                stems.add((name.parent, name.name.removesuffix(suffix)))
        return len(stems)


def _names(ref: ImageRef, layout: Layout) -> list[tuple[PurePosixPath, TruthKind]]:
    """Return the relative paths that an image's truth may have, without extension, best first.

    A truth may keep the image's extension, like the masks of a run with `names` "full".
    """
    names = ref.relative.name, ref.relative.stem.removesuffix(layout.image_suffix)
    return [(ref.relative.parent / (name + kind.suffix), kind) for name in names for kind in layout.kinds]


def _refuse_itself(ref: ImageRef, truth: Path) -> None:
    if os.path.realpath(ref.path) == os.path.realpath(truth):
        raise InputError(
            f"{ref.address} would be its own truth",
            "The images' folder also contains the truths. Pass only the images, for example with a pattern: photos/*.jpg",
        )


def _rank(relative: PurePosixPath) -> tuple[tuple[str, ...], int, str]:
    return relative.with_suffix("").parts, EXTENSIONS.index(relative.suffix.lower()), relative.suffix


def _walk(top: Path) -> Iterable[PurePosixPath]:
    if not is_folder(top):
        reason = "not a folder" if is_file(top) else "no such folder"
        raise InputError(f"{top}: {reason}", "Pass the folder of the truth masks as argument `truths`.")
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(top, onerror=_refuse_folder, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a cycle of links
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
        f"cannot list the folder {error.filename}: {describe_error(error)}", "Check its permissions."
    ) from error
